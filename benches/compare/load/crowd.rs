//! Clients that send a message, wait for its echo, and discard it unread, so that
//! they cost less than any server that copies: the server is the one with more to
//! do than there is time for.

use std::io::{self, Write};
use std::net::SocketAddr;

use hdrhistogram::Histogram;
use mio::Registry;
use mio::net::TcpStream;
use rustix::net::{RecvFlags, recv};

use super::polled::Clients;
use super::socket::{Buffers, connect_watched};
use super::would_block;

struct Member {
    stream: TcpStream,
    /// Bytes of the message that the socket has not taken yet.
    unsent: usize,
    /// Bytes of its echo that have not come yet.
    missing: usize,
}

/// All such clients of one server.
pub(super) struct Crowd {
    members: Vec<Member>,
    count: usize,
    message: Vec<u8>,
    stopping: bool,
    done: u64,
}

impl Crowd {
    pub(super) fn new(count: usize, size: usize) -> Self {
        Self {
            members: Vec::with_capacity(count),
            count,
            message: vec![0x55; size],
            stopping: true,
            done: 0,
        }
    }

    fn send(member: &mut Member, message: &[u8]) -> Result<(), String> {
        match member.stream.write(&message[message.len() - member.unsent..]) {
            Ok(sent) => member.unsent -= sent,
            Err(error) if would_block(&error) => {}
            Err(error) => return Err(format!("a client could not send: {error}")),
        }
        Ok(())
    }

    fn begin(&mut self, index: usize) -> Result<(), String> {
        let member = &mut self.members[index];
        (member.unsent, member.missing) = (self.message.len(), self.message.len());
        Self::send(member, &self.message)
    }
}

impl Clients for Crowd {
    fn open(&mut self, registry: &Registry, server: SocketAddr) -> Result<(), String> {
        for index in 0..self.count {
            let stream = connect_watched(server, Buffers::default(), registry, index)?;
            self.members.push(Member {
                stream,
                unsent: 0,
                missing: 0,
            });
        }
        Ok(())
    }

    fn start(&mut self, _: &Registry) -> Result<(), String> {
        self.stopping = false;
        (0..self.count).try_for_each(|index| self.begin(index))
    }

    fn ready(&mut self, index: usize, _: &Registry) -> Result<(), String> {
        let member = &mut self.members[index];
        if member.unsent > 0 {
            Self::send(member, &self.message)?;
        }
        while member.missing > 0 {
            let mut nowhere = [0; 64 * 1024];
            let length = member.missing.min(nowhere.len());
            // Of a TCP socket, TRUNC takes the bytes without a copy (tcp(7)).
            match recv(&member.stream, &mut nowhere[..length], RecvFlags::TRUNC) {
                Ok((_, 0)) => return Err("the server closed the connection of a busy client".into()),
                Ok((_, received)) => member.missing -= received.min(length),
                Err(error) if would_block(&io::Error::from(error)) => return Ok(()),
                Err(error) => return Err(format!("a client could not receive: {error}")),
            }
            if member.missing == 0 {
                self.done += 1;
                if !self.stopping {
                    return self.begin(index);
                }
            }
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<bool, String> {
        Ok(false)
    }

    fn stop(&mut self) {
        self.stopping = true;
    }

    fn is_quiet(&self) -> bool {
        self.members.iter().all(|member| member.missing == 0)
    }

    fn take_done(&mut self) -> u64 {
        std::mem::take(&mut self.done)
    }

    fn take_latency(&mut self) -> Option<Histogram<u64>> {
        None
    }
}
