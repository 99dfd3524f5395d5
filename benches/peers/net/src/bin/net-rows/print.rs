//! A row's figures, as text or as a line of JSON.

use serde_json::{Map, Value, json};

use crate::Series;
use crate::rows::{Aim, Bound, Row, Server};
use crate::statistics::{Ratio, median, ratio};

const MEASURES: [&str; 3] = ["cpu_us", "p50_us", "per_second"];
const MEMORY: [&str; 1] = ["bytes_each"];

fn values(series: &Series, measure: &str) -> Vec<f64> {
    series.bursts.iter().filter_map(|burst| burst[measure].as_f64()).collect()
}

fn find(all: &[Series], server: Server) -> Option<&Series> {
    all.iter().find(|series| series.server == server)
}

pub fn row(row: &Row, all: &[Series], millis: u64, as_json: bool) {
    let measures: &[&str] = if row.idle { &MEMORY } else { &MEASURES };
    let of = |ours, peer, measure| -> Option<Ratio> {
        let (ours, peer) = (find(all, ours)?, find(all, peer)?);
        Some(ratio(&values(ours, measure), &values(peer, measure)))
    };
    let pairs = [
        (Server::RemudaUring, Server::Bare),
        (Server::RemudaUring, Server::Ringline),
        (Server::RemudaUring, Server::Tokio),
        (Server::RemudaMio, Server::Tokio),
        // The floor of what the peers are measured by.
        (Server::Bare, Server::Ringline),
        (Server::Bare, Server::Tokio),
    ];
    let (mut figures, mut ratios, mut text) = (Map::new(), Map::new(), String::new());
    for series in all {
        let medians = measures.iter().map(|measure| (*measure, median(&values(series, measure))));
        let medians: Vec<(&str, f64)> = medians.collect();
        text += &format!("  {:13}", series.server.name());
        medians.iter().for_each(|(measure, value)| text += &format!("  {measure} {value:.2}"));
        text.push('\n');
        let medians = medians.into_iter().map(|(measure, value)| (measure.into(), json!(value)));
        figures.insert(series.server.name().into(), Value::Object(medians.collect()));
    }
    for (ours, peer) in pairs {
        let name = format!("{}/{}", ours.name(), peer.name());
        let mut each = Map::new();
        for measure in measures {
            let Some(Ratio { median, low, high }) = of(ours, peer, measure) else { continue };
            text += &format!("  {name:20} {measure:10} {median:.3} ({low:.3} to {high:.3})\n");
            each.insert((*measure).into(), json!([median, low, high]));
        }
        if !each.is_empty() {
            ratios.insert(name, Value::Object(each));
        }
    }
    let aims: Vec<Value> = row
        .aims()
        .iter()
        .filter_map(|aim| Some(judged(aim, of(aim.ours, aim.peer, aim.measure)?)))
        .collect();
    if as_json {
        let pairs = all.first().map_or(0, |series| series.bursts.len());
        let whole = json!({
            "row": row.name, "what": row.what, "pairs": pairs, "millis": millis,
            "servers": figures, "ratios": ratios, "aims": aims,
        });
        println!("{whole}");
        return;
    }
    println!("{}: {}\n{text}", row.name, row.what.trim_end());
    for aim in aims {
        println!("  aim: {aim}");
    }
}

/// An aim is met when the interval reaches it.
fn judged(aim: &Aim, ratio: Ratio) -> Value {
    let (bound, met) = match aim.bound {
        Bound::AtLeast(bound) => (format!("at least {bound}"), ratio.high >= bound),
        Bound::AtMost(bound) => (format!("at most {bound}"), ratio.low <= bound),
    };
    json!({
        "measure": aim.measure, "of": format!("{}/{}", aim.ours.name(), aim.peer.name()),
        "aim": bound, "met": met,
        "ratio": [ratio.median, ratio.low, ratio.high],
    })
}
