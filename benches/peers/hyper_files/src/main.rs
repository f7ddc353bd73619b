//! Files with tokio and hyper, as their guides show it: one task for each
//! client, and the body as a stream of pieces that blocking threads read.
//!
//! Usage: `hyper-files FOLDER PORT`; port 0 takes a free one.

use std::io;
use std::path::PathBuf;

use futures_util::TryStreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::fs::File;
use tokio::net::TcpSocket;
use tokio_util::io::ReaderStream;

const PIECE_BYTES: usize = 64 * 1024;
const BACKLOG: u32 = 4096;

type Body = BoxBody<Bytes, io::Error>;

async fn answer(folder: PathBuf, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let path = request.uri().path().trim_start_matches('/');
    let opened = match path.split('/').any(|name| name == "..") {
        true => Err(io::ErrorKind::NotFound.into()),
        false => File::open(folder.join(path)).await,
    };
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    match opened {
        Ok(file) => {
            let size = file.metadata().await?.len();
            let stream = ReaderStream::with_capacity(file, PIECE_BYTES).map_ok(Frame::data);
            *response.body_mut() = BodyExt::boxed(StreamBody::new(stream));
            response.headers_mut().insert("Content-Length", size.into());
        }
        Err(_) => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}

async fn serve(folder: PathBuf, port: u16) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([127, 0, 0, 1], port).into())?;
    let listener = socket.listen(BACKLOG)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let folder = folder.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(folder.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            let _ = http.serve_connection(TokioIo::new(client), service).await;
        });
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or_else(|| io::Error::other("usage: hyper-files FOLDER PORT"))?;
    let port = arguments.next().and_then(|port| port.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(folder.into(), port))
}
