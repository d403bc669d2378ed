//! The floor: a server that only accepts, shakes hands and calls `write(2)`.
//!
//! What a delivery costs depends on the machine, its kernel and who else is running. Measured in the same run, by the same
//! receivers and with the same bytes, this server is what no other can undercut; the ratio to it is what travels.
//!
//! The server is this same binary, started as a child. It prints its address as a line `ws://IP:PORT`, then takes frames
//! on its standard input, each preceded by its length (4 bytes, little endian), and writes every frame as it is to every
//! connection. It ends at the end of its input.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_tungstenite::tungstenite;

/// Longest frame taken from the input.
const FRAME_LIMIT_BYTES: usize = 16 << 20;

/// How long a client may take to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs the server until its input ends.
///
/// # Errors
///
/// When it cannot listen, or its input breaks off within a frame.
pub fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    println!("ws://{}", listener.local_addr()?);
    let clients: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
    let accepted = clients.clone();
    std::thread::Builder::new().name("accept".to_owned()).spawn(move || accept(&listener, &accepted))?;

    let mut input = io::stdin().lock();
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        match input.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_LIMIT_BYTES {
            bail!("a frame of {length} bytes is over the limit of {FRAME_LIMIT_BYTES}");
        }
        frame.resize(length, 0);
        input.read_exact(&mut frame).context("reading a frame")?;
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        // A client that is gone or takes nothing is forgotten; it shows at the receiver as a closed connection.
        clients.retain(|client| rustix::io::write(client, &frame) == Ok(frame.len()));
    }
}

fn accept(listener: &TcpListener, clients: &Mutex<Vec<TcpStream>>) {
    for stream in listener.incoming().flatten() {
        if let Ok(client) = shake_hands(stream) {
            clients.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
    }
}

fn shake_hands(stream: TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    let client = stream.try_clone()?;
    tungstenite::accept(stream).context("handshake")?;
    client.set_nonblocking(true)?;
    Ok(client)
}

/// A reference server in a process of its own, which ends with this handle.
#[derive(Debug)]
pub struct ReferenceServer {
    child: Child,
    input: Option<ChildStdin>,
    url: String,
}

impl ReferenceServer {
    /// Starts this binary as a reference server on a free port of the loopback interface.
    ///
    /// # Errors
    ///
    /// When the process cannot be started or does not tell its address.
    pub fn spawn() -> anyhow::Result<Self> {
        let binary = std::env::current_exe().context("finding the own binary")?;
        let mut child = std::process::Command::new(binary)
            .args(["reference-server", "--listen", "127.0.0.1:0"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the reference server")?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut server = ReferenceServer { child, input, url: String::new() };
        BufReader::new(output.context("no standard output")?).read_line(&mut server.url)?;
        server.url = server.url.trim().to_owned();
        if !server.url.starts_with("ws://") {
            bail!("the reference server did not start");
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it write one frame to all connections.
    ///
    /// # Errors
    ///
    /// When the process is gone.
    pub fn write_to_all(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("the reference server has ended")?;
        let mut message = (frame.len() as u32).to_le_bytes().to_vec();
        message.extend_from_slice(frame);
        input.write_all(&message).context("writing to the reference server")
    }
}

impl Drop for ReferenceServer {
    fn drop(&mut self) {
        // The end of its input ends it; killing makes sure when it hangs.
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
