//! Delays, retry budgets and restart intensity: pure functions of their arguments.
#![forbid(unsafe_code)]
