//! Whether it lives, and whether it is ready.

use rustix::process::Signal;

use crate::operator::Watched;
use crate::support::sockets::{connect, ping};
use crate::support::{PATIENCE, holds_within};

#[test]
fn it_lives_until_it_exits_and_is_ready_until_it_is_told_to_stop() {
    let watched = Watched::start("echo", &["--stop-timeout", "4s"]);
    assert_eq!(watched.get("/healthz").status, 200);
    assert_eq!(watched.get("/readyz").status, 200);
    let mut busy = connect(watched.server.address());
    ping(&mut busy, b"!");
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            // It goes on talking, so that the server waits for it.
            use std::io::{Read, Write};
            while busy.write_all(b"still here").is_ok()
                && busy.read(&mut [0; 64]).is_ok_and(|count| count > 0)
            {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        watched.server.signal(Signal::TERM);
        assert!(holds_within(PATIENCE, || watched.get("/readyz").status == 503));
        assert_eq!(watched.get("/healthz").status, 200, "it still lives");
        talking.join().unwrap();
    });
    assert!(watched.server.wait_for_exit().success());
}
