//! The probe tells good servers from bad ones, whatever the protocol, and says
//! in one line why it cannot probe at all.
//!
//! The servers are small threads in this process, each with one virtue or vice.
#![cfg(feature = "cli")]
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that fails should say so at once"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "these tests wait for other processes by the real clock"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use highwater::probe::{
    Http, Load, NoProgress, Outcome, Plan, ProbeError, Publishing, Push, Report, SlowKind, probe,
};
use socket2::SockRef;

/// A server that gives every client a thread of its own.
fn serve(client: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let client = client.clone();
            thread::spawn(move || client(stream));
        }
    });
    address
}

/// A write that takes longer than a second fails, and the end is a reset.
fn be_strict(stream: &TcpStream) {
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let socket = SockRef::from(stream);
    socket.set_tcp_notsent_lowat(16 << 10).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

/// Echoes, and resets who does not take the echo within a second.
fn strict_echo(mut stream: TcpStream) {
    be_strict(&stream);
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len) = stream.read(&mut buffer) {
        if len == 0 || stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
}

/// Echoes without any limit on what waits for the client.
fn unbounded_echo(mut stream: TcpStream) {
    let (queue, waiting) = mpsc::channel::<Vec<u8>>();
    let mut writer = stream.try_clone().unwrap();
    thread::spawn(move || waiting.iter().try_for_each(|bytes| writer.write_all(&bytes)));
    let mut buffer = vec![0; 64 << 10];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        if queue.send(buffer[..len].to_vec()).is_err() {
            return;
        }
    }
}

/// Short phases, few clients, no slow ones.
fn short(address: SocketAddr) -> Plan {
    Plan {
        fast: 3,
        baseline: Duration::from_millis(300),
        within: Duration::from_secs(3),
        pause: Duration::from_millis(500),
        fill: 8 << 20,
        ..Plan::new(address).without_slow_clients()
    }
}

/// One probe at a time: each can fill two processors by itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn run(plan: &Plan) -> Report {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    probe(plan, "the test's server", &mut NoProgress).unwrap()
}

fn outcome(report: &Report, finding: &str) -> Outcome {
    report.finding(finding).unwrap().outcome
}

fn assert_all_pass(report: &Report, findings: &[&str]) {
    for name in findings {
        let finding = report.finding(name).unwrap();
        assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
    }
}

#[test]
fn a_server_that_resets_stalled_clients_in_time_passes() {
    let plan = short(serve(strict_echo))
        .with(SlowKind::Stalled, 3)
        .with(SlowKind::Talker, 1);
    let report = run(&plan);
    assert_all_pass(
        &report,
        &[
            "stalled-disconnected",
            "stalled-in-time",
            "talkers-disconnected",
            "healthy-served",
        ],
    );
    let stalled = &report.groups[0];
    assert_eq!(
        (stalled.clients, stalled.full, stalled.reset, stalled.corrupt),
        (3, 3, 3, 0)
    );
    let longest = stalled.seconds_to_end.unwrap().maximum;
    assert!((0.5..3.0).contains(&longest), "{longest}");
}

#[test]
fn findings_that_were_not_tested_never_count_as_pass() {
    let report = run(&short(serve(strict_echo)));
    assert_eq!(outcome(&report, "healthy-served"), Outcome::Pass);
    for finding in [
        "stalled-disconnected",
        "stalled-in-time",
        "talkers-disconnected",
        "tricklers-disconnected",
        "paused-kept",
        "steady-kept",
        "healthy-unaffected",
        "memory-bounded",
        "nothing-left-in-kernel",
    ] {
        assert_eq!(outcome(&report, finding), Outcome::NotTested, "{finding}");
    }
    assert_eq!(report.measured.slow, []);
}

#[test]
fn a_paused_client_that_is_kept_and_a_paused_client_that_is_not_are_told_apart() {
    let address = serve(strict_echo);
    let kept = run(&short(address).with(SlowKind::Paused, 2));
    assert_eq!(
        outcome(&kept, "paused-kept"),
        Outcome::Pass,
        "{:?}",
        kept.finding("paused-kept")
    );
    assert!(
        kept.measured
            .slow
            .iter()
            .all(|client| client.complete && client.received_bytes > 0)
    );
    let lost = run(&Plan {
        // Far beyond the server's second, which any progress of its kernel's starts anew.
        pause: Duration::from_secs(5),
        ..short(address).with(SlowKind::Paused, 1)
    });
    assert_eq!(
        outcome(&lost, "paused-kept"),
        Outcome::Fail,
        "{:?}",
        lost.measured.slow
    );
    assert_eq!(lost.verdict, Outcome::Fail);
}

#[test]
fn a_steady_reader_is_kept_and_a_trickling_one_goes() {
    let mut plan = Plan {
        within: Duration::from_secs(4),
        ..short(serve(strict_echo))
            .with(SlowKind::Steady, 1)
            .with(SlowKind::Trickle, 1)
    };
    plan.slow[SlowKind::Steady].rate_bytes = 512 << 10;
    let report = run(&plan);
    assert_eq!(
        outcome(&report, "steady-kept"),
        Outcome::Pass,
        "{:?}",
        report.finding("steady-kept")
    );
    assert_eq!(outcome(&report, "tricklers-disconnected"), Outcome::Pass);
}

#[test]
fn a_queue_without_limit_fails_for_keeping_stalled_clients() {
    let plan = Plan {
        within: Duration::from_secs(1),
        ..short(serve(unbounded_echo)).with(SlowKind::Stalled, 2)
    };
    let report = run(&plan);
    // Its memory is that of the servers of all tests here: the zoo judges it in a process of its own.
    for finding in ["stalled-disconnected", "stalled-in-time"] {
        assert_eq!(outcome(&report, finding), Outcome::Fail, "{finding}");
    }
    assert_eq!(outcome(&report, "healthy-served"), Outcome::Pass);
    assert!(
        report
            .measured
            .slow
            .iter()
            .all(|client| client.offer_exhausted && client.intact == Some(true))
    );
}

#[test]
fn a_server_that_loses_one_byte_is_found_out() {
    let address = serve(|mut stream| {
        let mut buffer = [0; 4096];
        for turn in 0.. {
            match stream.read(&mut buffer) {
                Ok(len @ 1..) => {
                    let lost = usize::from(turn == 100);
                    if stream.write_all(&buffer[lost..len]).is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    });
    let report = run(&short(address));
    let finding = report.finding("healthy-served").unwrap();
    assert_eq!(finding.outcome, Outcome::Fail);
    assert!(finding.reason.contains("byte"), "{}", finding.reason);
}

#[test]
fn a_load_counts_verified_answers_and_stays_connected_between_slices() {
    let address = serve(strict_echo);
    for (size, pipeline) in [(64, 1), (1000, 8), (100_000, 2)] {
        let mut load = Load::connect(address, 4, size, pipeline, false).unwrap();
        for _ in 0..3 {
            let slice = load.run_for(Duration::from_millis(50)).unwrap();
            assert_eq!(slice.lost, []);
            assert!(slice.messages > 0 && slice.waits.len() >= slice.messages);
            let all = slice.to_last_answer;
            assert_eq!(all.messages, slice.waits.len());
            assert_eq!(all.bytes, all.messages * size as u64);
            assert!(all.elapsed >= slice.elapsed);
        }
    }
}

#[test]
fn a_load_says_which_client_was_lost_and_how() {
    let closing = serve(|mut stream| {
        let mut message = [0; 64];
        for _ in 0..100 {
            if stream.read_exact(&mut message).is_err() || stream.write_all(&message).is_err() {
                return;
            }
        }
        // What still comes is read, or the end would be a reset.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let changing = serve(|mut stream| {
        let mut message = [0; 64];
        while stream.read_exact(&mut message).is_ok() {
            message[10] ^= 1;
            if stream.write_all(&message).is_err() {
                return;
            }
        }
    });
    for (address, how) in [
        (closing, "was closed, when 6400 of "),
        (changing, "was answered wrongly: "),
    ] {
        let mut load = Load::connect(address, 1, 64, 1, false).unwrap();
        let slice = load.run_for(Duration::from_millis(200)).unwrap();
        let [lost] = &slice.lost[..] else {
            panic!("{:?}", slice.lost);
        };
        let said = lost.to_string();
        assert!(said.starts_with(&format!("client 0 {how}")), "{said}");
        assert!(said.ends_with(" due had come back"), "{said}");
    }
}

/// Answers each of at most so many requests with this.
fn answer_requests(mut stream: TcpStream, answer: &[u8], most_requests: usize) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let ends = lines.map_while(Result::ok).filter(String::is_empty);
    for _ in ends.take(most_requests) {
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// Answers every request with this.
fn http_server(answer: &'static str) -> SocketAddr {
    serve(move |stream| answer_requests(stream, answer.as_bytes(), usize::MAX))
}

fn http(address: SocketAddr) -> Plan {
    short(address).speaking(Http::get("/", "localhost"))
}

#[test]
fn a_web_server_is_probed_and_every_body_compared() {
    let body = "hello".repeat(200_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let report = run(&http(http_server(answer.leak())).with(SlowKind::Paused, 1));
    assert_eq!(outcome(&report, "healthy-served"), Outcome::Pass);
    assert_eq!(
        outcome(&report, "paused-kept"),
        Outcome::Pass,
        "{:?}",
        report.finding("paused-kept")
    );
}

#[test]
fn a_pause_before_answers_that_fit_into_the_kernel_tells_nothing() {
    let small = http_server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let report = run(&http(small).with(SlowKind::Paused, 1));
    assert_eq!(outcome(&report, "healthy-served"), Outcome::Pass);
    let paused = report.finding("paused-kept").unwrap();
    assert_eq!(paused.outcome, Outcome::Unknown, "{paused:?}");
    assert!(paused.reason.contains("never felt the pause"), "{paused:?}");
}

#[test]
fn an_answer_of_503_is_not_available() {
    let address = http_server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    let refusal = probe(&http(address), "x", &mut NoProgress).unwrap_err();
    assert!(matches!(refusal, ProbeError::WrongAnswer { .. }));
    assert!(
        refusal
            .to_string()
            .contains("GET / got status 503 Service Unavailable"),
        "{refusal}"
    );
}

#[test]
fn a_web_server_that_cannot_be_probed_gets_one_clear_line() {
    let line = |address: SocketAddr| {
        let address = address.to_string();
        one_line(&[&address, "--protocol", "http", "--path", "/x", "--timeout", "1s"])
    };
    let busy = http_server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    assert!(line(busy).contains("GET /x got status 503 Service Unavailable"));
    assert!(line(serve(drop)).contains("closed the first client"));
    let silent = serve(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    assert!(line(silent).contains("did not answer GET /x within 1 s"));
    let stuck = http_server("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
    assert!(line(stuck).contains("did not answer GET /x within 1 s"));
    let mail = serve(|mut stream| {
        let _ = stream.write_all(b"220 mail ready\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert!(line(mail).contains("GET /x got no HTTP response"));
}

/// A response with a body of 64 KiB.
fn large_answer() -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n".to_vec();
    answer.extend((0..65536u32).map(|at| (at / 7) as u8));
    answer
}

#[test]
fn a_web_server_that_resets_clients_which_do_not_read_passes() {
    let report = run(&Plan {
        within: Duration::from_secs(4),
        ..http(serve(|stream| {
            be_strict(&stream);
            answer_requests(stream, &large_answer(), usize::MAX);
        }))
        .with(SlowKind::Stalled, 2)
        .with(SlowKind::Paused, 1)
    });
    assert_all_pass(
        &report,
        &[
            "stalled-disconnected",
            "stalled-in-time",
            "paused-kept",
            "healthy-served",
        ],
    );
    let stalled = &report.groups[0];
    assert_eq!((stalled.clients, stalled.reset, stalled.corrupt), (2, 2, 0));
}

#[test]
fn a_web_server_that_keeps_clients_which_do_not_read_fails() {
    let report = run(&Plan {
        within: Duration::from_secs(1),
        ..http(serve(|stream| {
            answer_requests(stream, &large_answer(), usize::MAX)
        }))
        .with(SlowKind::Stalled, 1)
    });
    assert_eq!(outcome(&report, "stalled-disconnected"), Outcome::Fail);
    assert_eq!(outcome(&report, "healthy-served"), Outcome::Pass);
}

#[test]
fn a_web_server_that_closes_after_each_answer_is_asked_again_on_new_connections() {
    let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let report = run(&http(serve(|stream| answer_requests(stream, answer, 1))));
    let finding = report.finding("healthy-served").unwrap();
    assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
    let answers = report.measured.healthy.before.unwrap().messages;
    assert!(answers > 10, "{answers}");
}

fn push(address: SocketAddr, send: &str, publish: Option<&str>) -> Plan {
    short(address).speaking(Push {
        send: send.into(),
        publishing: publish.map(|line| Publishing {
            greeting: Vec::new(),
            line: line.into(),
            bytes_per_second: 64 << 10,
        }),
    })
}

/// Sends every line of one client to all clients that said `SUB`.
fn news_server() -> SocketAddr {
    let subscribers: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    serve(move |stream| {
        let requests = BufReader::new(stream.try_clone().unwrap()).lines();
        for line in requests.map_while(Result::ok) {
            let mut subscribers = subscribers.lock().unwrap();
            if line == "SUB" {
                subscribers.push(stream.try_clone().unwrap());
            } else {
                subscribers.retain_mut(|one| one.write_all(line.as_bytes()).is_ok());
            }
        }
    })
}

#[test]
fn a_publisher_makes_the_server_push() {
    let report = run(&push(news_server(), "SUB\n", Some("PUB news\n")));
    let finding = report.finding("healthy-served").unwrap();
    assert_eq!(finding.outcome, Outcome::Pass, "{finding:?}");
    let publisher = report.measured.publisher.unwrap();
    assert!(publisher.messages > 10 && !publisher.ended, "{publisher:?}");
    let before = report.measured.healthy.before.unwrap();
    assert_eq!(before.bytes % "PUB news".len() as u64, 0, "{before:?}");
}

#[test]
fn a_server_that_never_pushes_is_unknown_and_one_that_hangs_up_gets_one_clear_line() {
    let report = run(&push(news_server(), "SUB\n", None).with(SlowKind::Stalled, 1));
    let finding = report.finding("healthy-served").unwrap();
    assert_eq!(finding.outcome, Outcome::Unknown);
    assert!(
        finding.reason.contains("nothing was pushed to 3 of 3"),
        "{finding:?}"
    );
    let finding = report.finding("stalled-disconnected").unwrap();
    assert_eq!(finding.outcome, Outcome::Unknown);
    assert!(
        finding.reason.contains("0 bytes for each slow client"),
        "{finding:?}"
    );
    assert_eq!(report.verdict, Outcome::Unknown);
    let hangs_up = serve(drop).to_string();
    let said = one_line(&[&hangs_up, "--protocol", "push", "--send", "SUB\\n"]);
    assert!(said.contains("closed the first client"), "{said}");
}

#[test]
fn clients_that_listen_are_served_by_a_server_that_pushes() {
    let address = serve(|mut stream| {
        let mut greeting = [0; 4];
        if stream.read_exact(&mut greeting).is_err() || greeting != *b"go\r\n" {
            return;
        }
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        while stream.write_all(&[7; 32 << 10]).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    let report = run(&Plan {
        within: Duration::from_secs(4),
        ..push(address, "go\r\n", None).with(SlowKind::Stalled, 2)
    });
    assert_eq!(outcome(&report, "healthy-served"), Outcome::Pass);
    assert_eq!(
        outcome(&report, "stalled-disconnected"),
        Outcome::Pass,
        "{:?}",
        report.measured.slow
    );
    assert!(
        report.measured.slow.iter().all(|client| client.intact.is_none()),
        "nobody knows what is pushed"
    );
}

fn highwater(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_highwater"))
        .arg("probe")
        .args(arguments)
        .output()
        .unwrap()
}

/// The line on standard error of a probe that cannot be made.
fn refusal(arguments: &[&str]) -> String {
    let output = highwater(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(output.stdout.is_empty());
    said
}

fn one_line(arguments: &[&str]) -> String {
    let said = refusal(arguments);
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn a_server_that_cannot_be_probed_gets_one_clear_line() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap().to_string();
    drop(free);
    assert!(one_line(&[&nobody]).contains("cannot connect"));
    let hangs_up = serve(drop).to_string();
    assert!(one_line(&[&hangs_up]).contains("closed the first client"));
    let silent = serve(|mut stream| drop(stream.read_to_end(&mut Vec::new()))).to_string();
    assert!(one_line(&[&silent, "--timeout", "500ms"]).contains("did not answer 64 bytes within 0.5 s"));
    let wrong = serve(|mut stream| {
        let _ = stream.write_all(b"220 ready\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert!(one_line(&[&wrong.to_string()]).contains("answered wrongly"));
    assert!(one_line(&["nowhere.invalid:1"]).contains("nowhere.invalid:1"));
}

#[test]
fn wrong_arguments_are_named_with_what_would_be_right() {
    assert!(refusal(&["--port", "1", "--steady-rate", "fast"]).contains("64KiB/s"));
    assert!(refusal(&["--port", "1", "--pause", "4"]).contains("4s"));
    assert!(refusal(&["--port", "1", "--send", "\\q"]).contains("\\xHH"));
    assert!(refusal(&["--port", "1", "--path", "x"]).contains("begins with /"));
    assert!(one_line(&["--port", "1", "--size", "0"]).contains("--size"));
    assert!(refusal(&[]).contains("HOST:PORT"));
    assert!(one_line(&["--port", "1", "--plot", "/nonexistent/x.svg"]).contains("/nonexistent/x.svg"));
}

#[test]
fn more_clients_than_descriptors_are_refused_by_number() {
    let address = serve(strict_echo).to_string();
    let script = format!(
        "ulimit -n 100; exec {} probe {address} --fast 500",
        env!("CARGO_BIN_EXE_highwater")
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("descriptors") && said.contains("may open 100"),
        "{said}"
    );
}

#[test]
fn json_is_all_that_standard_output_gets_and_the_plot_is_drawn() {
    let address = serve(strict_echo).to_string();
    let directory = tempfile::tempdir().unwrap();
    let plot = directory.path().join("timeline.svg");
    let arguments = [
        &address,
        "--json",
        "--baseline",
        "300ms",
        "--within",
        "2s",
        "--stalled",
        "1",
        "--talkers",
        "0",
        "--paused",
        "0",
        "--steady",
        "0",
        "--plot",
        plot.to_str().unwrap(),
    ];
    let output = highwater(&arguments);
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["schema"], "highwater-probe/1");
    assert_eq!(report["findings"].as_array().unwrap().len(), 10);
    assert_eq!(report["findings"][0]["name"], "stalled-disconnected");
    assert_eq!(report["findings"][0]["verdict"], "pass");
    let on_slow = |phase: &str| {
        report["healthy"][phase]["prober_on_slow_percent"]
            .as_f64()
            .unwrap()
    };
    assert!(
        on_slow("during") > on_slow("before"),
        "filling a client up takes the prober time"
    );
    assert_eq!(output.status.code(), Some(i32::from(report["verdict"] != "pass")));
    let drawn = std::fs::read_to_string(plot).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("stalled") && drawn.contains("seconds"));
}

/// A probe in a process of its own that is interrupted once `is_time`; how long it took to end then.
fn interrupted(arguments: &[&str], is_time: impl Fn(u32) -> bool) -> (Output, Duration) {
    let child = Command::new(env!("CARGO_BIN_EXE_highwater"))
        .arg("probe")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (id, started) = (child.id(), Instant::now());
    // Before it is caught, the signal would end the process.
    while !catches_interrupts(id) || !is_time(id) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the probe never came so far"
        );
        thread::sleep(Duration::from_millis(5));
    }
    let pid = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
    let signalled = Instant::now();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    (output, signalled.elapsed())
}

#[test]
fn an_interrupt_ends_the_probe_at_once_with_what_it_has_measured() {
    let clients = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&clients);
    let address = serve(move |stream| {
        counted.fetch_add(1, Ordering::Relaxed);
        // Slow clients have megabytes to read when the interrupt comes.
        unbounded_echo(stream);
    });
    let arguments = [
        &address.to_string(),
        "--json",
        "--baseline",
        "1s",
        "--within",
        "60s",
    ];
    // One first client, ten healthy ones, and the slow ones.
    let (output, took) = interrupted(&arguments, |_| clients.load(Ordering::Relaxed) >= 20);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    assert_eq!(output.status.code(), Some(1));
    for finding in report["findings"].as_array().unwrap().iter().take(6) {
        assert_ne!(finding["verdict"], "fail", "nothing was decided: {finding}");
    }
    // 0.3 s on a machine of its own; this one also runs other tests.
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn an_interrupt_before_there_is_a_result_is_one_line_and_writes_nothing() {
    let silent = serve(|mut stream| drop(stream.read_to_end(&mut Vec::new()))).to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report.json");
    let arguments = [&silent, "--timeout", "60s", "--json", file.to_str().unwrap()];
    let (output, took) = interrupted(&arguments, |_| true);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "highwater probe: interrupted before there was a result\n");
    assert!(output.stdout.is_empty());
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// Whether the process has its handlers (the mask of caught signals in `/proc/PID/status`): SIGTERM's is the last.
fn catches_interrupts(id: u32) -> bool {
    const SIGTERM: u32 = 15;
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let mask = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (SIGTERM - 1)) != 0)
}
