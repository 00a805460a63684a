//! A TCP proxy between sender and platform that does what networks do: stalls,
//! resets, swallows, leaves one end open, flips a bit, trickles. Its behaviour is
//! switched while connections are open, and its choices follow from a seed.

use crate::rng::Rng;
use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What the proxy does with the bytes it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Passes them on.
    Pass,
    /// Reads and passes nothing: both ends stay connected to silence.
    Blackhole,
    /// Drops every open connection and refuses new ones.
    Reset,
    /// Closes the platform's end of every open and new connection; the sender's stays open to
    /// silence, also when the behaviour is another one again.
    HalfOpen,
    /// Passes on so many bytes a second of each connection and direction.
    Throttle(u64),
    /// Passes them on after a wait for each piece.
    Delay(Duration),
    /// Flips one bit in about one of so many pieces on the way to the platform.
    Corrupt(u64),
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    open: Mutex<Vec<TcpStream>>,
    closing: Mutex<bool>,
}

/// A running proxy; its connections are dropped with it.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepter: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and connects each client to `target`.
    pub fn start(target: SocketAddr, seed: u64) -> Result<Proxy> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("bind the proxy")?;
        let address = listener.local_addr().context("address of the proxy")?;
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Behaviour::Pass),
            open: Mutex::new(Vec::new()),
            closing: Mutex::new(false),
        });
        let for_thread = Arc::clone(&shared);
        let accepter = std::thread::spawn(move || accept(&listener, target, seed, &for_thread));
        Ok(Proxy { address, shared, accepter: Some(accepter) })
    }

    /// The URL of the proxy, for `scry_backfill.endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Switches the behaviour, for open connections too.
    pub fn behave(&self, behaviour: Behaviour) {
        set(&self.shared.behaviour, behaviour);
        if behaviour == Behaviour::Reset {
            self.drop_connections();
        }
    }

    /// Drops every open connection; new ones are welcome.
    pub fn drop_connections(&self) {
        let mut open = lock(&self.shared.open);
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        set(&self.shared.closing, true);
        self.drop_connections();
        // Wakes the accept call.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.accepter.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, seed: u64, shared: &Arc<Shared>) {
    for (number, client) in (1..).zip(listener.incoming()) {
        if *lock(&shared.closing) {
            return;
        }
        let Ok(client) = client else { continue };
        if *lock(&shared.behaviour) == Behaviour::Reset {
            continue;
        }
        let Ok(server) = TcpStream::connect(target) else { continue };
        let (Ok(client_in), Ok(server_in)) = (client.try_clone(), server.try_clone()) else { continue };
        let rng = Rng::new(seed).fork(number);
        let (up, down) = (Arc::clone(shared), Arc::clone(shared));
        let half_open = Arc::new(AtomicBool::new(false));
        let for_down = Arc::clone(&half_open);
        lock(&shared.open).extend([client.try_clone(), server.try_clone()].into_iter().flatten());
        std::thread::spawn(move || pump(client_in, server, true, rng, &up, &half_open));
        std::thread::spawn(move || pump(server_in, client, false, Rng::new(0), &down, &for_down));
    }
}

/// Moves bytes one way until either end closes.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    upwards: bool,
    mut rng: Rng,
    shared: &Shared,
    half_open: &AtomicBool,
) {
    let mut buffer = vec![0u8; 64 * 1024];
    loop {
        let rate = match *lock(&shared.behaviour) {
            // What is read at once is what a tenth of a second lets pass.
            Behaviour::Throttle(rate) => Some(rate.max(10)),
            _ => None,
        };
        let room = rate.map_or(buffer.len(), |rate| (rate / 10).clamp(1, buffer.len() as u64) as usize);
        let Some(Ok(count)) = buffer.get_mut(..room).map(|room| from.read(room)) else { break };
        if count == 0 {
            break;
        }
        if half_open.load(Ordering::Relaxed) {
            continue;
        }
        let Some(piece) = buffer.get_mut(..count) else { break };
        let mut behaviour = *lock(&shared.behaviour);
        while behaviour == Behaviour::Blackhole && !*lock(&shared.closing) {
            std::thread::sleep(Duration::from_millis(20));
            behaviour = *lock(&shared.behaviour);
        }
        match behaviour {
            Behaviour::Delay(wait) => std::thread::sleep(wait),
            Behaviour::Throttle(rate) => {
                std::thread::sleep(Duration::from_millis(count as u64 * 1000 / rate.max(10)));
            }
            Behaviour::HalfOpen => {
                half_open.store(true, Ordering::Relaxed);
                let platform = if upwards { &to } else { &from };
                let _ = platform.shutdown(Shutdown::Both);
                continue;
            }
            Behaviour::Corrupt(one_in) if upwards && rng.below(one_in) == 0 => {
                let at = rng.below(count as u64) as usize;
                if let Some(byte) = piece.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
            _ => {}
        }
        if to.write_all(piece).is_err() {
            break;
        }
    }
    if half_open.load(Ordering::Relaxed) && !upwards {
        // The sender's end is what stays open.
        return;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A lock whose other holder panicked is still good: plain values only.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn set<T>(mutex: &Mutex<T>, value: T) {
    *lock(mutex) = value;
}

#[cfg(test)]
mod tests {
    use super::{Behaviour, Proxy};
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    fn echo() -> SocketAddr {
        let echo = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = echo.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in echo.incoming().flatten() {
                let mut byte = [0u8];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            }
        });
        target
    }

    #[test]
    fn leaves_one_end_open_to_silence() {
        let proxy = Proxy::start(echo(), 1).unwrap();
        let mut client = TcpStream::connect(proxy.address).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        proxy.behave(Behaviour::HalfOpen);
        client.write_all(&[1]).unwrap();
        let silence = client.read(&mut [0u8]).unwrap_err().kind();
        assert_eq!(silence, std::io::ErrorKind::WouldBlock);
        proxy.behave(Behaviour::Pass);
        client.write_all(&[2]).unwrap();
        assert!(client.read(&mut [0u8]).is_err(), "for good");
        let mut other = TcpStream::connect(proxy.address).unwrap();
        other.write_all(&[3]).unwrap();
        assert_eq!(other.read(&mut [0u8]).unwrap(), 1);
    }

    #[test]
    fn trickles() {
        let proxy = Proxy::start(echo(), 1).unwrap();
        proxy.behave(Behaviour::Throttle(10_000));
        let mut client = TcpStream::connect(proxy.address).unwrap();
        let start = Instant::now();
        client.write_all(&[0; 2_000]).unwrap();
        client.read_exact(&mut [0; 2_000]).unwrap();
        assert!(start.elapsed() >= Duration::from_millis(180), "{:?}", start.elapsed());
    }

    #[test]
    fn passes_then_resets() {
        let proxy = Proxy::start(echo(), 1).unwrap();
        let mut client = TcpStream::connect(proxy.address).unwrap();
        let mut byte = [7u8];
        client.write_all(&byte).unwrap();
        client.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [7]);
        proxy.behave(Behaviour::Reset);
        assert!(client.read_exact(&mut byte).is_err());
    }
}
