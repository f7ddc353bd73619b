//! A Unix socket between two servers of one user: whole messages, and
//! descriptors with them.
//!
//! Owns who may be at the other end, and how long anything may take. Refuses
//! to know what the messages mean.

use std::fs::Permissions;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::limits::{MAX_PASSED_SOCKETS, TAKE_OVER_ANSWER_TIMEOUT};
use rustix::cmsg_space;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

/// Longest message: a name for each socket.
const MESSAGE_BYTES: usize = 4096;

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    /// The process at the other end.
    pub(super) pid: i32,
}

/// A message, and the descriptors that came with it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) text: String,
    pub(super) descriptors: Vec<OwnedFd>,
}

impl Channel {
    /// Calls the server at `path`.
    ///
    /// # Errors
    ///
    /// Those of connect(2), or the server belongs to another user.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_write_timeout(Some(TAKE_OVER_ANSWER_TIMEOUT))?;
        socket.connect(&SockAddr::unix(path)?)?;
        Self::new(socket)
    }

    /// The other end must be a process of our own user.
    pub(super) fn new(socket: Socket) -> io::Result<Self> {
        socket.set_write_timeout(Some(TAKE_OVER_ANSWER_TIMEOUT))?;
        let peer = socket_peercred(&socket)?;
        if peer.uid != geteuid() {
            let (uid, ours) = (peer.uid.as_raw(), geteuid().as_raw());
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                format!("the other side runs as user {uid} and not as user {ours}"),
            ));
        }
        Ok(Self {
            socket,
            pid: peer.pid.as_raw_nonzero().get(),
        })
    }

    /// Sends one message, with descriptors if there are any.
    pub(super) fn send(&self, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_PASSED_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "too many sockets for one message",
            ));
        }
        let slices = [IoSlice::new(text.as_bytes())];
        sendmsg(&self.socket, &slices, &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Ends the conversation, and our own wait for a message. The other side
    /// still gets what was sent.
    pub(super) fn hang_up(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }

    /// Waits for the next message, for at most `timeout`.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the other side hung up, `TimedOut` if nothing came,
    /// `InvalidData` if a message is longer than any of ours or no text.
    pub(super) fn receive(&self, timeout: Duration) -> io::Result<Message> {
        self.socket.set_read_timeout(Some(timeout))?;
        let mut bytes = [0; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_PASSED_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        let received = received.map_err(|error| match io::Error::from(error) {
            error if error.kind() == ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            error if error.kind() == ErrorKind::ConnectionReset => hung_up(),
            error => error,
        })?;
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                descriptors.extend(passed);
            }
        }
        let truncated = ReturnFlags::TRUNC | ReturnFlags::CTRUNC;
        if received.bytes == 0 {
            return Err(hung_up());
        }
        if received.flags.intersects(truncated) {
            return Err(io::Error::new(ErrorKind::InvalidData, "its message is too long"));
        }
        let text = std::str::from_utf8(&bytes[..received.bytes])
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, "its message is no text"))?
            .to_owned();
        Ok(Message { text, descriptors })
    }
}

fn hung_up() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "it hung up")
}

/// A socket that listens, for programs of our own user only, beside the path
/// where it will be found.
#[derive(Debug)]
pub(super) struct Unpublished {
    socket: Socket,
    beside: PathBuf,
}

impl Unpublished {
    /// Listens beside `path`.
    ///
    /// # Errors
    ///
    /// At `path` is no socket, the path is too long for one, or its folder
    /// takes no new file.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        refuse_other_files(path)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let address = SockAddr::unix(&beside).map_err(|_| {
            let why = "the path is too long for a socket: make it at most 90 bytes";
            io::Error::new(ErrorKind::InvalidInput, why)
        })?;
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        let _ = std::fs::remove_file(&beside);
        socket.bind(&address)?;
        let unpublished = Self {
            socket,
            beside: beside.into(),
        };
        std::fs::set_permissions(&unpublished.beside, Permissions::from_mode(0o600))?;
        unpublished.socket.listen(TAKE_OVER_BACKLOG)?;
        Ok(unpublished)
    }

    /// Moves it to `path`. A program that calls there meanwhile reaches the
    /// socket that was there before, or this one.
    pub(super) fn publish(mut self, path: &Path) -> io::Result<Socket> {
        std::fs::rename(&self.beside, path)?;
        self.beside = PathBuf::new();
        self.socket.try_clone()
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.beside);
    }
}

/// Callers that wait to be answered.
const TAKE_OVER_BACKLOG: i32 = 4;

/// Nobody's file is replaced because of a wrong path.
pub(super) fn refuse_other_files(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(io::Error::new(
            ErrorKind::AlreadyExists,
            "there is another kind of file; name a path for a socket",
        )),
        _ => Ok(()),
    }
}
