//! Lines come out the same however the bytes come in.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use proptest::prelude::*;
use remuda_protocol::{Framer, LineScan, TooLong};

/// Cuts `bytes` at the given places and hands the parts on.
fn parts(bytes: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    places.sort_unstable();
    places.push(bytes.len());
    let mut from = 0;
    places
        .into_iter()
        .map(|to| {
            let part = bytes[from..to].to_vec();
            from = to;
            part
        })
        .collect()
}

proptest! {
    #[test]
    fn every_way_of_splitting_gives_the_same_lines(
        lines in prop::collection::vec("[a-z{}\"]{0,30}", 0..20), rest in "[a-z]{0,10}",
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let mut bytes: Vec<u8> = lines.iter().flat_map(|line| [line, "\n"]).collect::<String>().into();
        bytes.extend_from_slice(rest.as_bytes());
        let (mut framer, mut from_framer) = (Framer::new(30), Vec::new());
        let (mut scan, mut buf, mut from_scan) = (LineScan::new(30), Vec::new(), Vec::new());
        for part in parts(&bytes, &cuts) {
            framer.spare()[..part.len()].copy_from_slice(&part);
            framer.filled(part.len());
            let complete = framer.rest().contains(&b'\n');
            prop_assert_eq!(framer.has_line(), Ok(complete));
            while let Some(line) = framer.next_line().unwrap() {
                from_framer.push(String::from_utf8(line.to_vec()).unwrap());
            }

            buf.extend_from_slice(&part);
            let mut at = 0;
            while let Some(end) = scan.next(&buf[at..]).unwrap() {
                from_scan.push(String::from_utf8(buf[at..at + end].to_vec()).unwrap());
                at += end + 1;
            }
            buf.drain(..at);
        }
        prop_assert_eq!(&from_framer, &lines);
        prop_assert_eq!(&from_scan, &lines);
        prop_assert_eq!(framer.rest(), rest.as_bytes());
        prop_assert_eq!(&buf[..], rest.as_bytes());
    }

    #[test]
    fn a_line_over_the_limit_is_refused_however_it_comes(
        over in 1usize..50, cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ended in any::<bool>(),
    ) {
        let mut bytes = vec![b'x'; 40 + over];
        if ended {
            bytes.push(b'\n');
        }
        let mut scan = LineScan::new(40);
        let mut buf = Vec::new();
        let mut last = Ok(None);
        for part in parts(&bytes, &cuts) {
            buf.extend_from_slice(&part);
            last = scan.next(&buf);
            if last.is_err() {
                break;
            }
        }
        prop_assert_eq!(last, Err(TooLong { max_line: 40 }));
    }
}

#[test]
fn what_was_searched_is_not_searched_again() {
    // A megabyte in single bytes is a megabyte of searching, not half a terabyte: if it were, this
    // test would not end in the patience of anyone.
    let bytes = vec![b'x'; 1 << 20];
    let mut scan = LineScan::new(1 << 20);
    for end in 0..=bytes.len() {
        assert_eq!(scan.next(&bytes[..end]), Ok(None));
    }
}
