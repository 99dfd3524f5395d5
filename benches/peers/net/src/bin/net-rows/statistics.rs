//! Medians, and the interval of a median by ranks, which needs no assumption on how values spread.

/// What is told of paired ratios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio {
    pub median: f64,
    /// The 95 % interval of the median; the extremes where there are too few pairs for one.
    pub low: f64,
    pub high: f64,
}

pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

pub fn ratio(ours: &[f64], peer: &[f64]) -> Ratio {
    let ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
    let sorted = sorted(&ratios);
    let rank = rank(sorted.len());
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    Ratio {
        median: median(&ratios),
        low: at(rank),
        high: at(sorted.len().saturating_sub(rank + 1)),
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// How many values lie outside of the interval on each side: as many as leave the median inside
/// with 95 %, by the binomial distribution of ranks.
fn rank(count: usize) -> usize {
    let (mut below, mut probability) = (0.0, 0.5_f64.powi(count as i32));
    let mut rank = 0;
    while rank < count / 2 {
        below += probability;
        if below > 0.025 {
            break;
        }
        probability *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    rank.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_the_one_of_the_tables() {
        // For 15 values the fourth from either end, for 31 the tenth.
        assert_eq!((rank(15), rank(31)), (3, 9));
        assert_eq!((rank(1), rank(5)), (0, 0));
    }

    #[test]
    fn ratios_are_taken_in_pairs() {
        let ours: Vec<f64> = (1..=15).map(|pair| f64::from(pair) * 2.0).collect();
        let peer: Vec<f64> = (1..=15).map(f64::from).collect();
        assert_eq!(ratio(&ours, &peer), Ratio { median: 2.0, low: 2.0, high: 2.0 });
    }
}
