//! The median of some measurements, and how sure it is.

/// A median with the order statistics that bound it with 95 % confidence.
pub struct Interval {
    pub middle: f64,
    pub low: f64,
    pub high: f64,
}

pub fn median(values: &[f64]) -> Interval {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    let half_width = 1.96 * count.sqrt() / 2.0;
    let low = (count / 2.0 - half_width).floor().max(0.0) as usize;
    let high = ((count / 2.0 + half_width).ceil() as usize).min(values.len() - 1);
    Interval { middle: values[values.len() / 2], low: values[low], high: values[high] }
}
