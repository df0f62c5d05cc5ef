//! A response body of pieces that are already there: nothing is copied, and its length is known.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// Pieces to send one after the other.
pub(super) struct Chunks {
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
            pieces: pieces
                .into_iter()
                .filter(|piece| piece.has_remaining())
                .collect(),
            _permit: permit,
        }
    }

    fn remaining(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}
