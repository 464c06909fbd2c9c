//! Tables for people: columns as wide as what is in them, numbers to the right, and never wider than
//! the terminal.

use crate::{
    ink::{Ink, paint},
    screen::{columns, shorten, width},
};

/// Blanks between two columns.
const GAP: usize = 2;

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    head: &'static str,
    is_number: bool,
    gives: Option<Gives>,
}

/// What a column gives up where the terminal is too narrow.
#[derive(Debug, Clone, Copy)]
struct Gives {
    /// Who gives first: the lowest.
    order: u8,
    /// Columns it keeps, never less than its head; 0 for one that goes altogether.
    keeps: usize,
    /// Gives all of it at once: digits are shown in full, or as few as a command needs.
    is_digits: bool,
}

impl Column {
    /// Text, to the left.
    pub fn text(head: &'static str) -> Self {
        Self { head, is_number: false, gives: None }
    }

    /// Numbers and their units, to the right.
    pub fn number(head: &'static str) -> Self {
        Self { is_number: true, ..Self::text(head) }
    }

    /// An address or an id: its first digits say enough, and are enough for a command.
    pub fn id(head: &'static str, order: u8) -> Self {
        Self { gives: Some(Gives { order, keeps: 9, is_digits: true }), ..Self::text(head) }
    }

    /// Is shortened down to `keeps` where there is too little room, after those of a lower order.
    pub fn shrinks(self, order: u8, keeps: usize) -> Self {
        Self { gives: Some(Gives { order, keeps: keeps.max(1), is_digits: false }), ..self }
    }

    /// Is left out where there is too little room.
    pub fn goes(self, order: u8) -> Self {
        Self { gives: Some(Gives { order, keeps: 0, is_digits: false }), ..self }
    }
}

/// What stands in one place: text without colours, and the ink for all of it.
#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    ink: Option<Ink>,
}

impl Cell {
    /// Text in an ink.
    pub fn of(ink: Option<Ink>, text: impl Into<String>) -> Self {
        Self { text: text.into(), ink }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::of(None, text)
    }
}

/// Rows below the heads of their columns.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without a row yet.
    pub fn new(columns: impl Into<Vec<Column>>) -> Self {
        Self { columns: columns.into(), rows: vec![] }
    }

    /// Adds a row: a cell a column.
    pub fn row(&mut self, cells: impl Into<Vec<Cell>>) {
        self.rows.push(cells.into());
    }

    /// All of it, as wide as it is or as stdout's terminal allows.
    pub fn text(&self) -> String {
        self.render(columns())
    }

    /// All of it in at most `room` columns, a line a row.
    pub fn render(&self, room: Option<usize>) -> String {
        let widths = self.widths(room);
        let heads = self.columns.iter().map(|c| Cell::of(Some(Ink::Faint), c.head)).collect();
        let line = |row: &Vec<Cell>| self.line(row, &widths, room.unwrap_or(usize::MAX));
        std::iter::once(&heads).chain(&self.rows).map(line).collect()
    }

    /// How wide each column is; 0 for one that is left out.
    fn widths(&self, room: Option<usize>) -> Vec<usize> {
        let widest = |(at, column): (usize, &Column)| {
            let cells = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| width(&cell.text));
            cells.chain([width(column.head)]).max().unwrap_or(0)
        };
        let mut widths: Vec<usize> = self.columns.iter().enumerate().map(widest).collect();
        let Some(room) = room else { return widths };
        let mut givers: Vec<(Gives, usize)> =
            self.columns.iter().zip(0..).filter_map(|(c, at)| Some((c.gives?, at))).collect();
        givers.sort_by_key(|(gives, at)| (gives.order, *at));
        for (gives, at) in givers {
            let excess = total(&widths).saturating_sub(room);
            let (Some(own), Some(column)) = (widths.get_mut(at), self.columns.get(at)) else { continue };
            let least = gives.keeps.max(width(column.head)).min(*own);
            match gives {
                _ if excess == 0 => {}
                Gives { keeps: 0, .. } => *own = 0,
                Gives { is_digits: true, .. } => *own = least,
                _ => *own = own.saturating_sub(excess).max(least),
            }
        }
        widths
    }

    fn line(&self, row: &[Cell], widths: &[usize], room: usize) -> String {
        let mut line = String::new();
        // Blanks owed before the next text, so that no line ends with some.
        let (mut taken, mut owed) = (0usize, 0usize);
        let columns = self.columns.iter().zip(widths).zip(row);
        for ((column, columns_wide), cell) in columns.filter(|((_, wide), _)| **wide > 0) {
            let left = room.saturating_sub(taken.saturating_add(owed));
            let text = shorten(&cell.text, (*columns_wide).min(left));
            let blank = columns_wide.saturating_sub(width(&text));
            let (before, after) = if column.is_number { (blank, 0) } else { (0, blank) };
            owed = owed.saturating_add(before);
            if !text.is_empty() {
                taken = taken.saturating_add(owed).saturating_add(width(&text));
                line.extend(std::iter::repeat_n(' ', owed));
                line.push_str(&paint(cell.ink, &text));
                owed = 0;
            }
            owed = owed.saturating_add(after).saturating_add(GAP);
        }
        line.push('\n');
        line
    }
}

/// Columns of a line.
fn total(widths: &[usize]) -> usize {
    let shown = widths.iter().filter(|wide| **wide > 0);
    shown.clone().sum::<usize>().saturating_add(shown.count().saturating_sub(1).saturating_mul(GAP))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([
            Column::id("ADDRESS", 2),
            Column::number("HOPS"),
            Column::text("NAME").shrinks(1, 6),
            Column::text("MORE").goes(0),
        ]);
        table.row(["a".repeat(32).into(), "1".into(), "写真-of-the-sea".into(), "more".into()]);
        table.row(["b".repeat(32).into(), "12".into(), Cell::of(Some(Ink::Good), "e\u{301}"), "".into()]);
        table
    }

    #[track_caller]
    fn check(room: Option<usize>, lines: [&str; 3]) {
        let text = anstream::adapter::strip_str(&table().render(room)).to_string();
        assert_eq!(text.lines().collect::<Vec<_>>(), lines, "{text}");
        let widest = text.lines().map(width).max().unwrap();
        assert!(room.is_none_or(|room| widest <= room), "{widest}:\n{text}");
    }

    #[test]
    fn columns_are_as_wide_as_a_terminal_shows_them() {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        let head = format!("ADDRESS{}HOPS  NAME             MORE", " ".repeat(27));
        let first = format!("{a}     1  写真-of-the-sea  more");
        let second = format!("{b}    12  e\u{301}");
        check(None, [&head, &first, &second]);
        check(Some(61), [&head, &first, &second]);
    }

    #[test]
    fn what_is_least_important_gives_way_first() {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        let gap = " ".repeat(27);
        let (first, second) = (format!("{a}     1  写真-of-the-sea"), format!("{b}    12  e\u{301}"));
        check(Some(60), [&format!("ADDRESS{gap}HOPS  NAME"), &first, &second]);
        let first = format!("{a}     1  写真-…");
        check(Some(46), [&format!("ADDRESS{gap}HOPS  NAME"), &first, &second]);
        check(Some(23), ["ADDRESS    HOPS  NAME", "aaaaaaaa…     1  写真-…", "bbbbbbbb…    12  e\u{301}"]);
        // Less than it can do with: what does not fit is cut, and no line wraps.
        check(Some(16), ["ADDRESS    HOPS", "aaaaaaaa…     1", "bbbbbbbb…    12"]);
    }

    #[test]
    fn heads_are_faint_and_cells_have_their_ink() {
        let text = table().render(None);
        assert!(text.starts_with("\u{1b}[2mADDRESS\u{1b}[0m"), "{text}");
        assert!(text.contains("\u{1b}[32me\u{301}\u{1b}[0m\n"), "{text}");
    }
}
