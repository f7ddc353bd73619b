//! The page: what it may load, and what a browser shows of slow clients.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::operator::Watched;
use crate::support::sockets::{Buffers, connect, connect_with, fill_up_to, ping};
use crate::support::{PATIENCE, holds_within};

#[test]
fn the_page_loads_nothing_from_elsewhere_and_says_so() {
    let watched = Watched::start("echo", &[]);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
    ] {
        let reply = watched.get(path);
        assert_eq!(reply.status, 200, "{path}");
        assert!(
            reply.head.contains(&format!("Content-Type: {kind}")),
            "{}",
            reply.head
        );
        let policy = reply
            .head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Security-Policy: "));
        let policy = policy.unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
        let elsewhere = reply.body.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !elsewhere.contains("http://") && !elsewhere.contains("https://"),
            "{path}"
        );
        assert!(
            !reply.body.contains("innerHTML"),
            "{path}: text of clients is never markup"
        );
    }
}

#[test]
fn a_browser_shows_slow_clients_as_they_come_and_go_and_says_when_the_server_is_silent() {
    let Some(browser) = Browser::start() else {
        println!("skipped: chromium is not installed");
        return;
    };
    let watched = Watched::start("echo", &["--grace", "6s"]);
    let mut page = browser.open(&format!("http://{}/", watched.admin));
    page.wait_until("document.getElementById('status').textContent === 'answers'");
    let mut healthy = connect(watched.server.address());
    ping(&mut healthy, b"well");
    let mut stalled = connect_with(watched.server.address(), Buffers::SMALL);
    fill_up_to(&mut stalled, 160 << 10);
    let address = stalled.local_addr().unwrap().to_string();
    let is_over = format!(
        "[...document.querySelectorAll('#live tr.over')].some(row => row.textContent.includes('{address}'))"
    );
    page.wait_until(&is_over);
    page.wait_until("document.querySelectorAll('#live tbody tr').length === 2");
    page.wait_until("document.querySelectorAll('#graphs path')[0].getAttribute('d').includes('L')");
    for width in [360, 1200] {
        page.set_width(width);
        let overflow = "document.scrollingElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(
            page.evaluate(overflow),
            json!(0),
            "nothing is cut off at {width} px"
        );
        let cut = format!(
            "[...document.querySelectorAll('td.address')].some(cell => cell.textContent.includes('{address}') \
             && cell.getBoundingClientRect().right <= innerWidth)"
        );
        assert_eq!(
            page.evaluate(&cut),
            json!(true),
            "the address is whole at {width} px"
        );
    }
    let is_gone = format!(
        "[...document.querySelectorAll('#gone tbody tr')].some(row => row.textContent.includes('{address}') \
         && row.textContent.includes('write timeout'))"
    );
    page.wait_until(&is_gone);
    page.wait_until("document.querySelectorAll('#live tbody tr').length === 1");
    page.wait_until("document.getElementById('graphs').textContent.includes('write timeout 1')");
    for scheme in ["light", "dark"] {
        page.call(
            "Emulation.setEmulatedMedia",
            &json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        let ground = page.evaluate("getComputedStyle(document.body).backgroundColor");
        let is_dark = ground == json!("rgb(16, 22, 28)");
        assert_eq!(is_dark, scheme == "dark", "{scheme}: {ground}");
    }
    assert_eq!(page.violations(), Vec::<String>::new());
    watched.server.signal(Signal::STOP);
    page.wait_until("document.getElementById('status').textContent.includes('has stopped answering')");
    watched.server.signal(Signal::CONT);
    page.wait_until("document.getElementById('status').textContent === 'answers'");
}

/// A headless browser of its own.
struct Browser {
    child: Child,
    port: u16,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `None` where no browser is installed.
    fn start() -> Option<Self> {
        let name = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| Command::new(name).arg("--version").output().is_ok())?;
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new(name)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                "--remote-allow-origins=*",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut browser = Self {
            child,
            port: 0,
            _profile: profile,
        };
        let found = browser._profile.path().join("DevToolsActivePort");
        let starts = holds_within(PATIENCE, || {
            browser.port = first_number(&found).unwrap_or(0);
            browser.port != 0
        });
        assert!(starts, "the browser does not start");
        Some(browser)
    }

    fn open(&self, address: &str) -> Page {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "PUT /json/new?about:blank HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        let mut reader = BufReader::new(stream);
        // The answer ends with the object, and the connection may stay open.
        while !text.contains("webSocketDebuggerUrl") {
            assert!(reader.read_line(&mut text).unwrap() > 0, "{text}");
        }
        let (_, rest) = text.split_once("/devtools/page/").unwrap();
        let id: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        let mut page = Page::connect(self.port, &id);
        page.call("Page.enable", &json!({}));
        page.call("Log.enable", &json!({}));
        page.call("Page.navigate", &json!({ "url": address }));
        page
    }
}

fn first_number(path: &Path) -> Option<u16> {
    std::fs::read_to_string(path).ok()?.lines().next()?.parse().ok()
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One tab, driven over a WebSocket.
struct Page {
    stream: TcpStream,
    calls: u64,
    violations: Vec<String>,
}

impl Page {
    fn connect(port: u16, id: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET /devtools/page/{id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        Self {
            stream,
            calls: 0,
            violations: Vec::new(),
        }
    }

    /// Calls a method of the browser, and waits for its answer.
    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.calls += 1;
        let message = json!({"id": self.calls, "method": method, "params": parameters}).to_string();
        let length = u16::try_from(message.len()).unwrap().to_be_bytes();
        // A text frame, masked with zeros.
        let mut frame = vec![0x81, 0x80 | 126, length[0], length[1], 0, 0, 0, 0];
        frame.extend_from_slice(message.as_bytes());
        self.stream.write_all(&frame).unwrap();
        loop {
            let answer = self.read_message();
            if answer["method"] == "Log.entryAdded" {
                self.violations.push(answer["params"]["entry"].to_string());
            }
            if answer["id"] == json!(self.calls) {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn read_message(&mut self) -> Value {
        let mut text = Vec::new();
        loop {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head).unwrap();
            let length = match head[1] & 0x7f {
                126 => {
                    let mut bytes = [0; 2];
                    self.stream.read_exact(&mut bytes).unwrap();
                    usize::from(u16::from_be_bytes(bytes))
                }
                127 => {
                    let mut bytes = [0; 8];
                    self.stream.read_exact(&mut bytes).unwrap();
                    u64::from_be_bytes(bytes) as usize
                }
                short => usize::from(short),
            };
            let mut part = vec![0; length];
            self.stream.read_exact(&mut part).unwrap();
            text.extend_from_slice(&part);
            if head[0] & 0x80 != 0 {
                return serde_json::from_slice(&text).unwrap_or(Value::Null);
            }
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({"expression": expression, "returnByValue": true});
        self.call("Runtime.evaluate", &parameters)["result"]["value"].clone()
    }

    fn wait_until(&mut self, expression: &str) {
        let mut comes = false;
        for _ in 0..PATIENCE.as_millis() / 100 {
            comes = self.evaluate(expression) == json!(true);
            if comes {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let text = self.evaluate("document.body ? document.body.innerText : ''");
        assert!(comes, "{expression} never holds; the page says: {text}");
    }

    fn set_width(&mut self, width: u32) {
        let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the browser refused by the policy of the page.
    fn violations(&self) -> Vec<String> {
        let refused = self
            .violations
            .iter()
            .filter(|entry| entry.contains("Content Security Policy"));
        refused.cloned().collect()
    }
}
