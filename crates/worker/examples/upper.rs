//! The smallest worker: `remuda map -- target/debug/examples/upper < FILE`.

fn main() -> std::process::ExitCode {
    remuda_worker::serve(|text: String| Ok::<_, std::convert::Infallible>(text.to_uppercase()))
}
