//! Compresses a response in two parts that make one gzip member: the readings, compressed once per snapshot, and the
//! exporter's own metrics, compressed when they change.
//!
//! A deflate stream is a sequence of blocks. The blocks of the first part end on a byte boundary (a sync flush) and none of
//! them is marked as the last. The blocks of the last part never refer to earlier text, so that they can follow any first
//! part. The checksum of the whole is computed from the checksums of the parts. Two members, one after the other, would be
//! simpler, but browsers and curl read only the first.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, Crc, write::DeflateEncoder};

/// Level 5 of zlib-rs compresses as well as zlib's default level 6; level 4 makes a response 2 % larger.
const LEVEL: Compression = Compression::new(5);

/// Deflate; no name, no time, no flags, unknown operating system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Why writing cannot fail.
const INFALLIBLE: &str = "compressing into a Vec cannot fail";

/// The compressed first or last part of a gzip member.
#[derive(Debug)]
pub struct Part {
    bytes: Bytes,
    checksum: Crc,
}

impl Part {
    /// Compresses the first part. `render` hands over its text chunk by chunk.
    pub fn first(render: impl FnOnce(&mut dyn FnMut(&str))) -> Self {
        let mut encoder = DeflateEncoder::new(HEADER.to_vec(), LEVEL);
        let mut checksum = Crc::new();
        render(&mut |text| {
            checksum.update(text.as_bytes());
            encoder.write_all(text.as_bytes()).expect(INFALLIBLE);
        });
        encoder.flush().expect(INFALLIBLE);
        Self {
            bytes: exact_size(std::mem::take(encoder.get_mut())),
            checksum,
        }
    }

    /// Compresses `text` as the last part.
    pub fn last(text: &str) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), LEVEL);
        let mut checksum = Crc::new();
        checksum.update(text.as_bytes());
        encoder.write_all(text.as_bytes()).expect(INFALLIBLE);
        Self {
            bytes: exact_size(encoder.finish().expect(INFALLIBLE)),
            checksum,
        }
    }
}

/// Returns the gzip member with the text of both parts, in pieces to be sent one after the other.
pub fn join(first: &Part, last: &Part) -> [Bytes; 3] {
    let mut whole = Crc::new();
    whole.combine(&first.checksum);
    whole.combine(&last.checksum);
    let trailer = [whole.sum(), whole.amount()].map(u32::to_le_bytes).concat();
    [first.bytes.clone(), last.bytes.clone(), trailer.into()]
}

/// Parts are kept for as long as their snapshot, so spare capacity would be wasted memory.
fn exact_size(bytes: Vec<u8>) -> Bytes {
    bytes.into_boxed_slice().into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read as _;

    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    /// Decompresses one member, and checks that nothing follows it.
    fn decompress(member: &[u8]) -> String {
        let mut decoder = GzDecoder::new(member);
        let mut text = String::new();
        decoder.read_to_string(&mut text).unwrap();
        assert!(decoder.into_inner().is_empty());
        text
    }

    fn first(chunks: &[&str]) -> Part {
        Part::first(|push| chunks.iter().for_each(|chunk| push(chunk)))
    }

    #[test]
    fn any_last_part_can_follow_any_first_part() {
        let firsts = [first(&[]), first(&["one", " "]), first(&["two "])];
        let lasts = ["", "end", "other end"].map(|text| (text, Part::last(text)));
        for (first_text, first) in ["", "one ", "two "].iter().zip(&firsts) {
            for (last_text, last) in &lasts {
                let member = join(first, last).concat();
                assert_eq!(decompress(&member), format!("{first_text}{last_text}"));
            }
        }
    }

    #[test]
    fn a_text_longer_than_any_buffer_comes_back_much_smaller_on_the_way() {
        let line = |n: u32| {
            let id = n.wrapping_mul(2_654_435_761);
            format!("lightfi_co2_ppm{{sensor_id=\"AQ2-{id:012X}\"}} {n}\n")
        };
        let lines: Vec<String> = (0..20_000).map(line).collect();
        let chunks: Vec<&str> = lines.iter().map(String::as_str).collect();
        let member = join(&first(&chunks), &Part::last("# EOF\n")).concat();
        let text = lines.concat() + "# EOF\n";
        assert!(member.len() < text.len() / 3, "{}", member.len());
        assert_eq!(decompress(&member), text);
    }

    proptest! {
        #[test]
        fn any_two_texts_make_one_member(one in ".{0,2000}", two in ".{0,2000}") {
            let member = join(&first(&[&one]), &Part::last(&two)).concat();
            prop_assert_eq!(decompress(&member), one + &two);
        }
    }
}
