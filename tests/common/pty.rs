//! A terminal that a program runs in: what is asserted is what a person would see on its screen.
//!
//! The program is started with `setsid --ctty`, so that the terminal is its own: Ctrl-C reaches it as a
//! signal, and it is told when the terminal is closed.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    num::NonZeroU16,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};

use super::{PATIENCE, wait_until};

/// Pause between two looks at what the program wrote.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Rows of the page that holds everything that was ever written.
const PAGE_ROWS: u16 = 400;

/// Keys that are no characters.
pub const CTRL_C: &str = "\x03";
pub const CTRL_D: &str = "\x04";
pub const ENTER: &str = "\r";
pub const LEFT: &str = "\x1b[D";
pub const TAB: &str = "\t";
pub const UP: &str = "\x1b[A";

/// What is done at the terminal's other end.
enum Order {
    Write(Vec<u8>),
    Resize(Winsize),
    /// Whether the terminal is as a shell needs it: whole lines, with an echo.
    IsCooked(mpsc::Sender<bool>),
}

/// What the program wrote.
struct Shown {
    /// The screen, as it is.
    screen: vt100::Parser,
    /// As if the screen were so tall that nothing leaves it at its upper end.
    page: vt100::Parser,
    bytes: Vec<u8>,
}

/// A terminal with a program in it. Both end when this is dropped.
pub struct Pty {
    child: Child,
    orders: Option<mpsc::Sender<Order>>,
    shown: Arc<Mutex<Shown>>,
    driver: Option<JoinHandle<()>>,
}

fn winsize(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn parser(rows: u16, columns: u16) -> vt100::Parser {
    vt100::Parser::new(NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap(), 0)
}

impl Pty {
    /// Runs `qpc` without the caller's environment in a terminal of this size.
    #[track_caller]
    pub fn qpc(data_dir: &Path, args: &[&str], (rows, columns): (u16, u16)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_qpc"));
        command.env_clear().env("QPC_DATA_DIR", data_dir).args(args);
        Self::start(&command, (rows, columns))
    }

    /// Runs a command with its environment in a terminal of this size.
    #[track_caller]
    pub fn start(command: &Command, (rows, columns): (u16, u16)) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        tcsetwinsize(&controller, winsize(rows, columns)).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let terminal: OwnedFd = File::options().read(true).write(true).open(path).unwrap().into();

        let mut own = Command::new("/usr/bin/setsid");
        own.arg("--ctty").arg(command.get_program()).args(command.get_args()).env_clear();
        own.env("TERM", "xterm-256color");
        own.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        own.stdin(Stdio::from(terminal.try_clone().unwrap()));
        own.stdout(Stdio::from(terminal.try_clone().unwrap()));
        own.stderr(Stdio::from(terminal));
        let child = own.spawn().unwrap();
        // It holds the terminal open as long as it lives.
        drop(own);

        let shown =
            Shown { screen: parser(rows, columns), page: parser(PAGE_ROWS, columns), bytes: Vec::new() };
        let shown = Arc::new(Mutex::new(shown));
        let (orders, given) = mpsc::channel();
        let seen = shown.clone();
        let driver = std::thread::spawn(move || drive(controller, &given, &seen));
        Self { child, orders: Some(orders), shown, driver: Some(driver) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types text and keys.
    #[track_caller]
    pub fn types(&self, keys: &[&str]) {
        for key in keys {
            self.order(Order::Write(key.as_bytes().to_vec()));
        }
    }

    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = |n| NonZeroU16::new(n).unwrap();
        self.shown.lock().unwrap().screen.set_size(size(rows), size(columns));
        self.order(Order::Resize(winsize(rows, columns)));
    }

    #[track_caller]
    fn order(&self, order: Order) {
        self.orders.as_ref().expect("the terminal is open").send(order).unwrap();
    }

    /// The lines of the screen, without blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        let shown = self.shown.lock().unwrap();
        let columns = shown.screen.screen().size().1.get();
        shown.screen.screen().rows(0, columns).map(|row| row.trim_end().to_owned()).collect()
    }

    /// The line that the cursor is in.
    pub fn line(&self) -> String {
        let row = self.shown.lock().unwrap().screen.screen().cursor_position().0;
        self.lines().get(usize::from(row)).cloned().unwrap_or_default()
    }

    /// Waits until the screen shows a text.
    #[track_caller]
    pub fn shows(&self, text: &str) {
        self.is_as(&format!("{text:?} on the screen"), |pty| {
            pty.lines().iter().any(|line| line.contains(text))
        });
    }

    /// Waits until the line of the cursor is this.
    #[track_caller]
    pub fn is_at(&self, line: &str) {
        self.is_as(&format!("the cursor in {line:?}"), |pty| pty.line() == line);
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn is_as(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "waited in vain for {what}:\n{}", self.lines().join("\n"));
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Everything that was written so far, as lines of a terminal of endless height.
    pub fn page(&self) -> String {
        let shown = self.shown.lock().unwrap();
        let columns = shown.page.screen().size().1.get();
        let rows: Vec<String> = shown.page.screen().rows(0, columns).collect();
        rows.iter().map(|row| row.trim_end()).collect::<Vec<_>>().join("\n")
    }

    /// Waits until something was written, also where it has left the screen by now.
    #[track_caller]
    pub fn has_shown(&self, text: &str) {
        self.is_as(&format!("{text:?} ever on the screen"), |pty| pty.page().contains(text));
    }

    /// Lines of the page that were too long for the terminal and went on below.
    pub fn wrapped(&self) -> Vec<String> {
        let shown = self.shown.lock().unwrap();
        let screen = shown.page.screen();
        let rows = screen.rows(0, screen.size().1.get()).zip(0u16..);
        rows.filter(|(_, at)| screen.row_wrapped(*at)).map(|(row, _)| row).collect()
    }

    /// The colour of the first character of a text, where it is first on the page.
    #[track_caller]
    pub fn colour_of(&self, text: &str) -> vt100::Color {
        let shown = self.shown.lock().unwrap();
        let screen = shown.page.screen();
        let find = |(row, at): (String, u16)| {
            let before = row.split_once(text)?.0.chars().count();
            screen.cell(at, u16::try_from(before).unwrap()).map(|cell| cell.fgcolor())
        };
        let mut rows = screen.rows(0, screen.size().1.get()).zip(0u16..);
        rows.find_map(find).unwrap_or_else(|| panic!("no {text:?} on the page"))
    }

    /// The bytes that the program wrote.
    pub fn bytes(&self) -> Vec<u8> {
        self.shown.lock().unwrap().bytes.clone()
    }

    /// Whether the terminal takes whole lines and echoes them, as a shell expects to find it.
    pub fn is_cooked(&self) -> bool {
        let (tell, told) = mpsc::channel();
        self.order(Order::IsCooked(tell));
        told.recv_timeout(PATIENCE).unwrap()
    }

    /// Closes the terminal, as somebody who closes its window.
    pub fn hang_up(&mut self) {
        self.orders = None;
        if let Some(driver) = self.driver.take() {
            driver.join().unwrap();
        }
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(&format!("the end of the program in\n{}", self.lines().join("\n")), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the screen when the test failed ---\n{}", self.lines().join("\n").trim_end());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.hang_up();
    }
}

/// Holds the other end until there are no more orders.
fn drive(controller: OwnedFd, orders: &mpsc::Receiver<Order>, shown: &Mutex<Shown>) {
    let flags = fcntl_getfl(&controller).unwrap();
    fcntl_setfl(&controller, flags | OFlags::NONBLOCK).unwrap();
    let mut controller = File::from(controller);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match controller.read(&mut buffer) {
            Ok(read) if read > 0 => {
                let bytes = &buffer[..read];
                let mut shown = shown.lock().unwrap();
                shown.screen.process(bytes);
                shown.page.process(bytes);
                shown.bytes.extend_from_slice(bytes);
                continue;
            }
            // Nothing new, or nobody has the terminal open at the moment.
            _ => {}
        }
        match orders.recv_timeout(LOOK_EVERY) {
            Ok(Order::Write(bytes)) => write(&mut controller, &bytes),
            Ok(Order::Resize(size)) => tcsetwinsize(&controller, size).unwrap(),
            Ok(Order::IsCooked(tell)) => {
                let modes = tcgetattr(&controller).unwrap().local_modes;
                let _ = tell.send(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn write(controller: &mut File, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match controller.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK_EVERY),
            // Nobody has it open any more; what the test waits for will not come, and says so.
            Err(_) => return,
        }
    }
}
