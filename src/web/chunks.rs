//! A response body of pieces that are already there, and before them perhaps a text that is rendered while it is sent.
//! Nothing is copied; where all pieces are there, the length is known.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use crate::exposition::Rendering;

/// Pieces to send one after the other.
pub(super) struct Chunks {
    rendering: Option<Rendering>,
    pieces: VecDeque<Bytes>,
    /// Given back once the last piece is on its way, or the client is gone.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Chunks {
    pub(super) fn new(
        pieces: impl IntoIterator<Item = Bytes>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            rendering: None,
            pieces: pieces
                .into_iter()
                .filter(|piece| piece.has_remaining())
                .collect(),
            _permit: permit,
        }
    }

    /// The pieces come after this text.
    pub(super) fn after(self, rendering: Rendering) -> Self {
        Self {
            rendering: Some(rendering),
            ..self
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        // A chunk takes a tenth of a millisecond, which is less than sending it.
        if let Some(chunk) = self.rendering.as_mut().and_then(Iterator::next) {
            return Some(chunk.into());
        }
        self.rendering = None;
        self.pieces.pop_front()
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rendering.is_none() && self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let ready = self.pieces.iter().map(|piece| piece.len() as u64).sum();
        match self.rendering {
            None => SizeHint::with_exact(ready),
            Some(_) => SizeHint::new(),
        }
    }
}
