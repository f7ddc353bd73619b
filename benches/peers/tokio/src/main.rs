//! Echo and tunnel with tokio, one task per client, as its guide shows them.
//!
//! Usage: `tokio-peer current_thread|multi_thread PORT [HOST:PORT]`; port 0 takes
//! a free one; with an address it is a tunnel, without one an echo server.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Builder;

const READ_BYTES: usize = 64 * 1024;
const BACKLOG: u32 = 4096;

async fn echo(mut client: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = client.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        client.write_all(&buffer[..length]).await?;
    }
}

async fn tunnel(mut client: TcpStream, to: String) -> io::Result<()> {
    let mut upstream = TcpStream::connect(to).await?;
    upstream.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

async fn serve(port: u16, to: Option<String>) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    let listener: TcpListener = socket.listen(BACKLOG)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        match &to {
            Some(to) => drop(tokio::spawn(tunnel(client, to.clone()))),
            None => drop(tokio::spawn(echo(client))),
        }
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut runtime = match arguments.next().as_deref() {
        Some("current_thread") => Builder::new_current_thread(),
        Some("multi_thread") => Builder::new_multi_thread(),
        _ => return Err(io::Error::other("usage: tokio-peer current_thread|multi_thread PORT [HOST:PORT]")),
    };
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    runtime.enable_io().build()?.block_on(serve(port, arguments.next()))
}
