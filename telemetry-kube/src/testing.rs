//! An API server that does as it is told: refuses, forgets, breaks, holds its tongue.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request's first line and its body.
type Asked = (String, Vec<u8>);

/// What the server answers with.
#[derive(Clone)]
pub(crate) enum Answer {
    /// One body.
    Whole(u16, Value),
    /// Lines of a watch, and then silence, or the end.
    Lines(Vec<Value>, bool),
    /// Nothing at all.
    Silence,
}

/// Answers in the order in which they are given, and notes what was asked.
pub(crate) struct Server {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (queue, notes) = (Arc::new(Mutex::new(answers.into_iter())), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_all(stream, Arc::clone(&queue), Arc::clone(&notes)));
            }
        });
        Self { address, asked, task }
    }

    /// What leads a client to it.
    pub(crate) fn kubeconfig(&self) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        });
        file.write_all(text.to_string().as_bytes()).unwrap();
        file
    }

    /// The first lines of requests.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    /// Their bodies.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(_, body)| serde_json::from_slice(body).unwrap_or_default()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer_all(
    mut stream: TcpStream,
    answers: Arc<Mutex<std::vec::IntoIter<Answer>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    let mut head = Vec::new();
    loop {
        let mut byte = [0];
        if stream.read_exact(&mut byte).await.is_err() {
            return;
        }
        head.push(byte[0]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&head).to_lowercase();
        let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
        head.clear();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        asked.lock().unwrap().push((line, body));
        let next = answers.lock().unwrap().next();
        match next {
            Some(Answer::Whole(code, body)) => {
                let body = body.to_string();
                let head = format!(
                    "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                if stream.write_all((head + &body).as_bytes()).await.is_err() {
                    return;
                }
            }
            Some(Answer::Lines(lines, ends)) => {
                let head =
                    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut text = head.to_owned();
                for line in lines {
                    let line = format!("{line}\n");
                    text += &format!("{:x}\r\n{line}\r\n", line.len());
                }
                if ends {
                    text += "0\r\n\r\n";
                }
                if stream.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
                if !ends {
                    std::future::pending::<()>().await;
                }
            }
            Some(Answer::Silence) | None => std::future::pending().await,
        }
    }
}
