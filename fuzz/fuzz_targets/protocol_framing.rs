//! Any bytes in any pieces: the lines are those that a plain split at `\n` gives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remuda_protocol::{Framer, LineScan};

const MAX_LINE: usize = 64;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, sizes) = input;
    let mut framer = Framer::new(MAX_LINE);
    let mut scan = LineScan::new(MAX_LINE);
    let (mut buf, mut expected) = (Vec::new(), bytes.split(|byte| *byte == b'\n'));
    let mut sizes = sizes.iter().cycle();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |size| usize::from(*size) + 1).min(rest.len());
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        framer.spare()[..size].copy_from_slice(piece);
        framer.filled(size);
        buf.extend_from_slice(piece);
        loop {
            let by_scan = scan.next(&buf);
            match (framer.next_line(), by_scan) {
                (Ok(Some(line)), Ok(Some(end))) => {
                    assert_eq!(line, &buf[..end]);
                    assert_eq!(Some(line), expected.next());
                    buf.drain(..=end);
                }
                (Ok(None), Ok(None)) => break,
                (Err(_), Err(_)) => {
                    assert!(buf.len() > MAX_LINE);
                    return;
                }
                other => panic!("the two disagree: {other:?}"),
            }
        }
    }
    assert_eq!(framer.rest(), &buf[..]);
});
