//! One gzip member made of two pieces: a prefix deflated once, a tail deflated when it changes, joined by combining
//! their checksums.
//!
//! A deflate stream is a row of blocks. The prefix's end on a byte's boundary (a sync flush) without being marked as
//! the last; the tail's never point back into the prefix, so they can follow any.

use std::sync::OnceLock;

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress, Status};

/// With zlib-rs, level 5 gives the size of zlib's usual 6: of 1,000 sensors 187,516 bytes to 187,822, where level 4 gives
/// 190,808 and level 3 192,936.
const LEVEL: Compression = Compression::new(5);

/// Deflate; no name, no time, no flags, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// What is free in the buffer at least before the library writes to it.
const ROOM: usize = 4 * 1024;

/// The beginning of a member.
#[derive(Debug, Clone)]
pub struct Prefix {
    bytes: Bytes,
    checksum: Hasher,
}

/// A prefix under way.
pub struct Deflater {
    stream: Compress,
    out: Vec<u8>,
    checksum: Hasher,
}

impl Deflater {
    /// Nothing yet, with room for the prefix of a text of about this many bytes.
    pub fn new(expected: usize) -> Self {
        /// An exposition shrinks to less than this part of itself, mostly.
        const SHRINKS_TO: usize = 10;
        let mut out = Vec::with_capacity(expected / SHRINKS_TO + ROOM);
        out.extend_from_slice(&HEADER);
        Self {
            stream: Compress::new(LEVEL, false),
            out,
            checksum: Hasher::new(),
        }
    }

    /// Takes the next piece of the text.
    pub fn push(&mut self, text: &[u8]) {
        self.checksum.update(text);
        deflate(&mut self.stream, text, FlushCompress::None, &mut self.out);
    }

    /// Ends it.
    pub fn finish(mut self) -> Prefix {
        deflate(&mut self.stream, &[], FlushCompress::Sync, &mut self.out);
        Prefix {
            bytes: exactly(self.out),
            checksum: self.checksum,
        }
    }
}

/// The end of a member, but for the checksum of the whole.
#[derive(Debug, Clone)]
pub struct Tail {
    bytes: Bytes,
    checksum: Hasher,
    /// Of the first prefix that it followed, and mostly the only one: with a snapshot, what the exporter says of itself
    /// changes too. To combine checksums was a tenth of all instructions of a small scrape.
    joined: OnceLock<(Sum, Bytes)>,
}

/// Of a prefix: its checksum and length.
type Sum = (u32, u64);

impl Tail {
    /// Deflates `text`.
    pub fn new(text: &[u8]) -> Self {
        let mut bytes = Vec::new();
        let mut stream = Compress::new(LEVEL, false);
        deflate(&mut stream, text, FlushCompress::Finish, &mut bytes);
        let mut checksum = Hasher::new();
        checksum.update(text);
        Self {
            bytes: exactly(bytes),
            checksum,
            joined: OnceLock::new(),
        }
    }

    /// The end of the member that begins with `prefix`.
    fn trailer(&self, prefix: &Prefix) -> Bytes {
        let sum = (
            prefix.checksum.clone().finalize(),
            prefix.checksum.total_len(),
        );
        let (joined, trailer) = self.joined.get_or_init(|| (sum, self.combine(prefix)));
        if *joined == sum {
            trailer.clone()
        } else {
            self.combine(prefix)
        }
    }

    fn combine(&self, prefix: &Prefix) -> Bytes {
        let mut whole = prefix.checksum.clone();
        whole.combine(&self.checksum);
        // The format keeps the length modulo 2^32.
        #[allow(clippy::cast_possible_truncation)]
        let length = (prefix.checksum.total_len() + self.checksum.total_len()) as u32;
        let [checksum, length] = [whole.finalize(), length].map(u32::to_le_bytes);
        Bytes::from([checksum, length].concat())
    }
}

/// The body, to be sent piece by piece: one member that holds the prefix's text and then the tail's. Copies neither.
pub fn join(prefix: &Prefix, tail: &Tail) -> [Bytes; 3] {
    [
        prefix.bytes.clone(),
        tail.bytes.clone(),
        tail.trailer(prefix),
    ]
}

/// Has `stream` take all of `text`, and with a flush give all that it holds back.
fn deflate(stream: &mut Compress, text: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        out.reserve(ROOM);
        let taken = stream.total_in();
        let status = stream
            .compress_vec(rest, out, flush)
            .expect("a stream that was never misused takes any bytes");
        #[allow(clippy::cast_possible_truncation)] // at most `rest.len()`
        let taken = (stream.total_in() - taken) as usize;
        rest = &rest[taken..];
        let done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            // Room left over means that nothing is held back.
            _ => rest.is_empty() && out.len() < out.capacity(),
        };
        if done {
            return;
        }
    }
}

/// Kept for as long as the snapshot: without the spare room.
fn exactly(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Read as _;

    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    /// What one member holds, with whether anything follows it.
    fn decode(body: &[u8]) -> (Vec<u8>, bool) {
        let mut decoder = GzDecoder::new(body);
        let mut text = Vec::new();
        decoder.read_to_end(&mut text).unwrap();
        (text, !decoder.into_inner().is_empty())
    }

    fn joined(prefix: &[u8], tail: &[u8]) -> Vec<u8> {
        join(&whole(prefix), &Tail::new(tail)).concat()
    }

    /// Pushed in pieces: no border may show.
    fn whole(text: &[u8]) -> Prefix {
        let mut deflater = Deflater::new(text.len());
        text.chunks(1000).for_each(|piece| deflater.push(piece));
        deflater.finish()
    }

    #[test]
    fn nothing_at_all_is_a_member_too() {
        assert_eq!(decode(&joined(b"", b"")), (Vec::new(), false));
    }

    #[test]
    fn a_text_longer_than_the_window_and_any_buffer_comes_back() {
        let line = |n: u32| {
            format!(
                "lightfi_co2_ppm{{sensor_id=\"AQ2-{:012X}\"}} {n}\n",
                n.wrapping_mul(2_654_435_761)
            )
        };
        let prefix: String = (0..20_000).map(line).collect();
        let body = joined(prefix.as_bytes(), b"# EOF\n");
        assert!(
            body.len() < prefix.len() / 3,
            "{} of {}",
            body.len(),
            prefix.len()
        );
        assert_eq!(decode(&body), ((prefix + "# EOF\n").into_bytes(), false));
    }

    #[test]
    fn a_prefix_serves_many_tails() {
        let prefix = whole(b"same ");
        for tail in ["one", "two"] {
            let body = join(&prefix, &Tail::new(tail.as_bytes())).concat();
            assert_eq!(decode(&body), (format!("same {tail}").into_bytes(), false));
        }
    }

    #[test]
    fn a_tail_ends_many_prefixes() {
        let tail = Tail::new(b"end");
        for prefix in ["one ", "two ", "one "] {
            let body = join(&whole(prefix.as_bytes()), &tail).concat();
            assert_eq!(decode(&body), (format!("{prefix}end").into_bytes(), false));
        }
    }

    proptest! {
        #[test]
        fn any_prefix_and_tail_make_one_member(
            prefix in proptest::collection::vec(any::<u8>(), 0..5000),
            tail in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            prop_assert_eq!(decode(&joined(&prefix, &tail)), ([prefix, tail].concat(), false));
        }
    }
}
