//! Workers that are killed while jobs run: every job is accounted for.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod map_runs;

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use map_runs::{command, folder, is_soak, lines, numbers, shell_worker, signal};

/// How often a running worker is killed.
const EVERY: Duration = Duration::from_millis(20);

/// A worker of jobs of one millisecond that tells of each run, when it begins and when it ends.
fn counting(dir: &Path) -> String {
    let path = dir.join("runs");
    let runs = path.display();
    let job = format!("echo $$ b $body >>{runs}; sleep 0.001; echo $$ e $body >>{runs}; ok $body");
    shell_worker(dir, "count.sh", &job)
}

/// Runs `jobs` jobs, and kills a worker every 20 ms: one that has a job, if there is one. Goes on
/// until `deaths` died of it with a job. Gives the run's status, its results, and how many died.
fn killed(dir: &Path, jobs: u64, deaths: usize, options: &[&str]) -> (i32, String, usize) {
    map_runs::write(dir, "in", numbers(jobs));
    let worker = counting(dir);
    let mut args =
        vec!["-j4", "-a", "in", "-o", "out", "--joblog", "log", "--pid-namespace", "never"];
    args.extend_from_slice(options);
    args.extend_from_slice(&["--", "sh", &worker]);
    let stderr = std::fs::File::create(dir.join("err")).unwrap();
    let mut run =
        command(dir, &args).stdin(Stdio::null()).stderr(Stdio::from(stderr)).spawn().unwrap();
    let began = Instant::now();
    let mut shot = 0;
    let status = loop {
        std::thread::sleep(EVERY);
        if let Some(status) = run.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < map_runs::LONG * 5, "it hangs: {}", map_runs::read(dir, "err"));
        if shot < deaths
            && let Some(pid) = busy(dir).first()
            && shoot(dir, *pid)
        {
            shot += 1;
        }
    };
    let status = status.code().unwrap();
    (status, std::fs::read_to_string(dir.join("out")).unwrap(), shot)
}

/// Kills a worker if it has a job: it is stopped first, since the job may end meanwhile.
fn shoot(dir: &Path, worker: u32) -> bool {
    signal(worker, "STOP");
    let stat = || std::fs::read_to_string(format!("/proc/{worker}/stat"));
    while stat().is_ok_and(|stat| !stat.contains(") T ") && !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
    let is_hit = busy(dir).contains(&worker);
    signal(worker, if is_hit { "KILL" } else { "CONT" });
    is_hit
}

/// The workers that have begun a job and not ended it, as far as the file tells.
fn busy(dir: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(dir.join("runs")).unwrap_or_default();
    let mut last: HashMap<u32, &str> = HashMap::new();
    // Those that are alive wrote lately.
    for line in text.lines().rev().take(200).collect::<Vec<_>>().into_iter().rev() {
        let mut words = line.split(' ');
        if let (Some(pid), Some(what), Some(_)) = (words.next(), words.next(), words.next()) {
            last.insert(pid.parse().unwrap(), what);
        }
    }
    let is_worker = |pid: &u32| {
        let cmdline = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&cmdline).contains("count.sh")
    };
    last.into_iter()
        .filter(|(_, what)| *what == "b")
        .map(|(pid, _)| pid)
        .filter(is_worker)
        .collect()
}

/// How often each job began, and how many runs began and did not end.
fn runs(dir: &Path) -> (HashMap<String, u32>, usize) {
    let mut begun = HashMap::new();
    let mut open = 0i64;
    for line in lines(dir, "runs") {
        let mut words = line.split(' ').skip(1);
        let (what, body) = (words.next().unwrap(), words.next().unwrap());
        match what {
            "b" => {
                *begun.entry(body.trim_matches('"').to_owned()).or_insert(0) += 1;
                open += 1;
            }
            _ => open -= 1,
        }
    }
    (begun, usize::try_from(open).unwrap())
}

fn size() -> (u64, usize) {
    if is_soak() { (20_000, 200) } else { (4_000, 40) }
}

#[test]
fn by_default_every_result_is_there_exactly_once() {
    let dir = folder();
    let (jobs, deaths) = size();
    // A job that is hit three times by chance is not a poisonous one.
    let (status, out, shot) = killed(dir.path(), jobs, deaths, &["--poison-after", "20"]);
    let mut found: Vec<u64> = out.lines().map(|line| line.parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (1..=jobs).collect::<Vec<_>>());
    assert_eq!(status, 0);
    let (_, died_running) = runs(dir.path());
    eprintln!("{shot} were killed, {died_running} of them while running a job");
    assert!(died_running * 2 >= deaths, "{died_running} of {shot} died while running a job");
}

#[test]
fn at_most_once_accounts_for_each_job_and_runs_none_twice() {
    let dir = folder();
    let (jobs, deaths) = size();
    let (status, out, shot) = killed(dir.path(), jobs, deaths, &["--at-most-once"]);
    let (begun, died_running) = runs(dir.path());
    assert!(begun.values().all(|times| *times == 1), "a job ran twice");
    let codes: HashMap<String, String> = lines(dir.path(), "log")[1..]
        .iter()
        .map(|row| {
            let row: Vec<&str> = row.split('\t').collect();
            (row[0].to_owned(), row[9].to_owned())
        })
        .collect();
    assert_eq!(codes.len() as u64, jobs, "each job stands in the log");
    let found: Vec<&str> = out.lines().collect();
    for line in &found {
        assert_eq!(codes[*line], "ok");
    }
    let lost = codes.values().filter(|code| *code == "worker_lost").count();
    assert_eq!(found.len() + lost, jobs as usize, "results and failures are all jobs");
    assert_eq!(status, if lost > 100 { 101 } else { lost as i32 });
    eprintln!("{shot} were killed, {died_running} while running a job, {lost} jobs were lost");
    assert!(lost >= died_running && died_running * 2 >= deaths);
}

#[test]
fn a_worker_that_dies_is_replaced_at_once_if_it_had_answered() {
    let dir = folder();
    let worker = shell_worker(dir.path(), "w.sh", "ok $body; exit 0");
    let began = Instant::now();
    // Fifty deaths with a back-off would take minutes.
    let ran =
        map_runs::map(&["-j1", "-k", "--poison-after", "9", "--", "sh", &worker], numbers(50));
    assert_eq!(ran.text(), numbers(50));
    assert!(began.elapsed() < map_runs::LONG / 4, "{:?}", began.elapsed());
}

#[test]
fn a_worker_that_dies_of_every_job_is_replaced_until_each_is_given_up() {
    let dir = folder();
    let starts = dir.path().join("starts");
    let worker = shell_worker(dir.path(), "w.sh", "exit 1");
    let script = format!("echo >>{}; . {worker}", starts.display());
    let began = Instant::now();
    let run = map_runs::map(&["-j2", "--", "sh", "-c", &script], numbers(12));
    // Replacing those that never get to a job is held back for up to ten seconds each: thirty-four
    // times that took a minute. Here it is a quarter of a second at most.
    assert!(began.elapsed() < map_runs::LONG / 4, "{:?}", began.elapsed());
    // Each job had its three workers, and no worker was started for nothing.
    let started = lines(dir.path(), "starts").len();
    assert!((36..=38).contains(&started), "{started} were started");
    let run = run.expect(12);
    assert_eq!(run.text(), "");
    // Said when it first happens, and at the end how often.
    let told: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|line| line.contains("poisoned: 3 workers died")), "{told:?}");
    assert!(told[1].contains("12 times, first at line"), "{told:?}");
}

#[test]
fn a_peer_that_is_away_is_told_of_and_waited_for() {
    let dir = folder();
    let address = format!("unix:{}", dir.path().join("peer").display());
    let mut run = map_runs::start(dir.path(), &["-k", "--attach", &address]);
    run.give("a\nb\n", false);
    run.hears(&format!("remuda: {address} is away, and is tried again: "));
    let mut peer = std::process::Command::new(map_runs::REMUDA)
        .args(["serve", "-j1", "--builtin", "echo", "-l", &format!("{address},role=admin")])
        .spawn()
        .unwrap();
    let (status, stdout, _) = run.end();
    peer.kill().unwrap();
    peer.wait().unwrap();
    assert_eq!((status.code(), stdout.as_str()), (Some(0), "a\nb\n"));
}
