//! `qpc` on a terminal, and what a person sees on it.

#![allow(unreachable_pub, reason = "each test binary has its own copy")]

use std::{
    fs::{File, OpenOptions},
    io::Read,
    num::NonZero,
    os::unix::ffi::OsStrExt,
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

/// Rows of every terminal here; the columns are chosen.
const ROWS: u16 = 40;

/// A new terminal of so many columns: the side of who looks at it, and what opens the other one.
pub fn pair(columns: u16) -> (File, impl Fn() -> File) {
    // Processes of other tests must not keep it open.
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = move || {
        let path = std::ffi::OsStr::from_bytes(name.to_bytes());
        OpenOptions::new().read(true).write(true).open(path).unwrap()
    };
    (File::from(master), open)
}

/// A process whose streams are a terminal; killed when dropped.
pub struct Terminal {
    child: Child,
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    pub fn start(mut command: Command, columns: u16) -> Self {
        let (mut master, open) = pair(columns);
        command.env("TERM", "xterm-256color").stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap();
        // Or the terminal would stay open in this process, and reading from it would never end.
        drop((command, open));
        let size = |n: u16| NonZero::new(n).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size(ROWS), size(columns), 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let (shown, kept) = (screen.clone(), raw.clone());
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The end of the last process on it is an error.
            while let Ok(n) = master.read(&mut bytes) {
                if n == 0 {
                    break;
                }
                shown.lock().unwrap().process(&bytes[..n]);
                kept.lock().unwrap().extend_from_slice(&bytes[..n]);
            }
        });
        Self { child, screen, raw, reader: Some(reader) }
    }

    /// What is on the screen, without blanks at the end.
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Rows of the screen that go on in the next one.
    pub fn wrapped(&self) -> usize {
        let parser = self.screen.lock().unwrap();
        (0..ROWS).filter(|row| parser.screen().row_wrapped(*row)).count()
    }

    /// Waits for its end: its exit code and all that it wrote.
    pub fn finish(mut self) -> (i32, String, Self) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let raw = String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned();
        (code, raw, self)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
