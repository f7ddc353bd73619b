//! The predecessor's side: who asks at the path, and what is answered.
//!
//! Owns the path and its socket. Each caller has a thread, and there are few:
//! the event loop hears of a caller only when it accepts. A caller that hangs
//! up, speaks nonsense or never starts changes nothing; who comes last is not
//! kept out by those before.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use highwater::limits::{ACCEPT_RETRY, TAKE_OVER_ANSWER_TIMEOUT, TAKE_OVER_START_TIMEOUT};
use log::{info, warn};
use socket2::Socket;

use super::callers::{Callers, Seat};
use super::channel::{Channel, Unpublished};
use super::{ACCEPTING, REFUSED, REQUEST, SOCKETS, YOURS};
use crate::cli::stopper::Stopper;

/// A path at which this server will be found by its successor.
#[derive(Debug)]
pub(crate) struct Offer {
    path: PathBuf,
    socket: Unpublished,
}

/// The path at which callers are answered.
#[derive(Debug)]
pub(crate) struct Published {
    path: PathBuf,
    metadata: Option<Metadata>,
    /// Set once a successor accepts: the path is the successor's.
    is_left: Arc<AtomicBool>,
}

impl Offer {
    /// Makes the socket for `path`, while another server may answer there.
    ///
    /// # Errors
    ///
    /// One sentence, if no socket can be made there.
    pub(crate) fn prepare(path: &Path) -> Result<Self, String> {
        let socket = Unpublished::listen(path).map_err(|error| {
            format!(
                "--take-over {}: {error}; name a path in a folder that you may write to",
                path.display()
            )
        })?;
        let path = path.to_owned();
        Ok(Self { path, socket })
    }

    /// Answers callers from now on, on threads of its own. A failure costs the
    /// next restart its smoothness, and no client anything.
    pub(crate) fn publish(self, stopper: Stopper) -> Published {
        let Self { path, socket } = self;
        let is_left = Arc::new(AtomicBool::new(false));
        let leaving = Arc::clone(&is_left);
        let answering = socket.publish(&path).and_then(|socket| {
            let answering = move || answer_callers(&socket, &stopper, &leaving);
            thread::Builder::new()
                .name("take-over".to_owned())
                .spawn(answering)
        });
        if let Err(error) = answering {
            warn!(event = "take_over"; "nobody can take over at {}: {error}", path.display());
        }
        let metadata = std::fs::symlink_metadata(&path).ok();
        Published {
            path,
            metadata,
            is_left,
        }
    }
}

impl Published {
    /// Removes the path, unless another server has put its own there. A
    /// successor does so at any moment, even between a look at the path and its
    /// removal: so nothing is removed once the sockets are a successor's.
    pub(crate) fn remove(&self) {
        if self.is_left.load(Ordering::Acquire) {
            return;
        }
        let place = |found: &Metadata| (found.dev(), found.ino());
        let found = std::fs::symlink_metadata(&self.path).ok();
        if found.as_ref().map(place) == self.metadata.as_ref().map(place) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn answer_callers(socket: &Socket, stopper: &Stopper, is_left: &Arc<AtomicBool>) {
    let callers = Callers::default();
    loop {
        let caller = match socket.accept() {
            Ok((caller, _)) => caller,
            Err(error) => {
                warn!(event = "take_over"; "cannot hear who wants to take over: {error}");
                thread::sleep(Duration::max(ACCEPT_RETRY, TAKE_OVER_ANSWER_TIMEOUT));
                continue;
            }
        };
        let channel = match Channel::new(caller) {
            Ok(channel) => Arc::new(channel),
            Err(error) => {
                warn!(event = "take_over"; "refused a caller of --take-over: {error}");
                continue;
            }
        };
        let seat = callers.seat(&channel);
        let (stopper, is_left) = (stopper.clone(), Arc::clone(is_left));
        let answering = move || answer(&channel, &seat, &stopper, &is_left);
        if let Err(error) = thread::Builder::new()
            .name("take-over".to_owned())
            .spawn(answering)
        {
            warn!(event = "take_over"; "cannot answer a caller of --take-over: {error}");
        }
    }
}

/// The whole conversation with one caller.
fn answer(channel: &Channel, seat: &Seat, stopper: &Stopper, is_left: &AtomicBool) {
    let pid = channel.pid;
    match hand_over(channel, seat, stopper, is_left) {
        Ok(()) => {}
        Err(_) if seat.is_lost() => {
            warn!(event = "take_over"; "process {pid} has not taken over, and made room for a later caller");
        }
        Err(error) if error.kind() == ErrorKind::Other => {
            info!(event = "take_over"; "process {pid} asked to take over, too late: {error}");
            let _ = channel.send(&format!("{REFUSED}{error}"), &[]);
        }
        Err(error) => {
            warn!(event = "take_over"; "process {pid} has not taken over, going on as before: {error}");
            let _ = channel.send(&format!("{REFUSED}{error}"), &[]);
        }
    }
}

fn hand_over(channel: &Channel, seat: &Seat, stopper: &Stopper, is_left: &AtomicBool) -> io::Result<()> {
    let pid = channel.pid;
    expect(channel, REQUEST, TAKE_OVER_ANSWER_TIMEOUT)?;
    let stops = || io::Error::other("the server stops already");
    let sent = stopper.with_sockets(|sockets| {
        let (names, descriptors): (Vec<_>, Vec<_>) = sockets.named().unzip();
        channel.send(&format!("{SOCKETS}\n{}", names.join("\n")), &descriptors)
    });
    sent.ok_or_else(stops)??;
    info!(event = "take_over"; "process {pid} asked for the listening sockets, and has them");
    expect(channel, ACCEPTING, TAKE_OVER_START_TIMEOUT)?;
    if !seat.keep() {
        return Err(ErrorKind::ConnectionAborted.into());
    }
    // Said before the server stops: from then on it may end at any moment.
    is_left.store(true, Ordering::Release);
    if !stopper.hand_over() {
        is_left.store(false, Ordering::Release);
        return Err(stops());
    }
    info!(event = "take_over"; "process {pid} accepts now: leaving it the listening sockets");
    channel.send(YOURS, &[])
}

/// Waits for these very words.
fn expect(channel: &Channel, words: &str, timeout: Duration) -> io::Result<()> {
    let message = channel.receive(timeout)?;
    if message.text == words {
        return Ok(());
    }
    let said: String = message.text.chars().take(40).collect();
    Err(io::Error::new(
        ErrorKind::InvalidData,
        format!("it said {said:?}, and not {words:?}"),
    ))
}
