//! A node in a process of its own, and a plain HTTP client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Waits end with what they wait for; this ends those that would not.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The binary.
pub fn zvm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zvm"));
    // The environment of whoever runs the tests must not configure the node.
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ZVM_"))
    {
        command.env_remove(name);
    }
    command
}

/// A running `zvm server`.
pub struct Server {
    pub child: Child,
    pub address: String,
    greeting: String,
}

impl Server {
    /// Starts a node on a free port with its data in `folder`.
    pub fn start(folder: &Path, flags: &[&str]) -> Self {
        let mut child = zvm()
            .args([
                "server",
                "--rpc-port",
                "0",
                "--log-level",
                "warn",
                "--database-path",
            ])
            .arg(folder)
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut greeting = String::new();
        let address = loop {
            let line = lines
                .next()
                .expect("the node says where it listens")
                .expect("text");
            if let Some(rest) = line.strip_prefix("Listening on http://") {
                break rest
                    .split_whitespace()
                    .next()
                    .expect("an address")
                    .to_owned();
            }
            greeting += &line;
            greeting.push('\n');
        };
        Self {
            child,
            address,
            greeting,
        }
    }

    /// What the node printed before it listened.
    pub fn greeting(&self) -> &str {
        &self.greeting
    }

    /// Sends a request and gives the whole answer.
    pub fn ask(&self, method: &str, params: Value) -> Value {
        ask(&self.address, method, params).expect("an answer")
    }

    /// Sends a request that must succeed and gives its result.
    pub fn result(&self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params.clone());
        assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
        answer["result"].take()
    }

    /// Sends a request that must fail and gives code and message.
    pub fn error(&self, method: &str, params: Value) -> (i64, String) {
        let answer = self.ask(method, params);
        let error = answer
            .get("error")
            .unwrap_or_else(|| panic!("{method}: {answer}"));
        (
            error["code"].as_i64().expect("a code"),
            error["message"].as_str().expect("a message").to_owned(),
        )
    }

    /// Waits for the receipt of a transaction.
    pub fn receipt(&self, hash: &Value) -> Value {
        let start = Instant::now();
        loop {
            let receipt = self.result("eth_getTransactionReceipt", json!([hash]));
            if !receipt.is_null() {
                return receipt;
            }
            assert!(start.elapsed() < PATIENCE, "no receipt of {hash}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Tells the node to end and waits until it has; it must end well.
    pub fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .expect("kill");
        assert!(sent.success());
        let status = self.child.wait().expect("an end");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // After an end of its own there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One JSON-RPC request; an error is one of the connection.
pub fn ask(address: &str, method: &str, params: Value) -> std::io::Result<Value> {
    let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
    let answer = post(address, &request.to_string(), &[])?;
    Ok(serde_json::from_str(&answer.body)?)
}

/// An HTTP answer.
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

/// Posts JSON text.
pub fn post(address: &str, body: &str, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
    http(address, "POST", body, headers)
}

/// The status of the answer to a WebSocket handshake: 101 if it is taken.
pub fn upgrade(address: &str, headers: &[(&str, &str)]) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    line.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

/// One HTTP request on a connection of its own. A `Host` among the headers takes the place of the true one.
pub fn http(
    address: &str,
    method: &str,
    body: &str,
    headers: &[(&str, &str)],
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut request = format!("{method} / HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "Host") {
        request += &format!("Host: {address}\r\n");
    }
    request += &format!(
        "Connection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    request += body;
    stream.write_all(request.as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(cut)?;
    let head = head.to_ascii_lowercase();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(cut)?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err(cut());
    }
    Ok(Answer {
        status,
        head,
        body: body.to_owned(),
    })
}
