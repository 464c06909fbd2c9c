//! The line of nodes, drawn.

use super::mesh::Node;

/// Nodes in a row of the picture: what fits 80 columns.
const ROW_MAX: usize = 6;

/// Columns of what is between two nodes.
const LINK_COLUMNS: usize = 6;

/// Nodes in a line with the kind of each link.
#[derive(Debug, Clone)]
pub struct Picture {
    nodes: Vec<Drawn>,
    mark: Option<String>,
}

/// One node.
#[derive(Debug, Clone)]
struct Drawn {
    name: String,
    /// What it is dialled over by the node behind it.
    scheme: String,
    is_there: bool,
}

impl Picture {
    /// All nodes, each linked to the next.
    pub fn of<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Self {
        let drawn =
            |node: &Node| Drawn { name: node.name.clone(), scheme: node.scheme.to_owned(), is_there: true };
        Self { nodes: nodes.into_iter().map(drawn).collect(), mark: None }
    }

    /// Without the last node, and with a remark below the one before it.
    pub fn without_the_last(mut self, mark: &str) -> Self {
        if let Some(last) = self.nodes.last_mut() {
            last.is_there = false;
        }
        self.mark = Some(mark.to_owned());
        self
    }

    /// Its lines, a few nodes a row.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let marked = self.nodes.len().checked_sub(2);
        // What a mark is about is in the rows from its own on.
        let skipped = marked.filter(|_| self.mark.is_some()).map_or(0, |marked| marked / ROW_MAX);
        for (row, nodes) in self.nodes.chunks(ROW_MAX).enumerate().skip(skipped) {
            let first = row.saturating_mul(ROW_MAX);
            let (mut above, mut middle, mut below) = (String::new(), String::new(), String::new());
            let mut mark = None;
            for (at, node) in nodes.iter().enumerate() {
                let number = first.saturating_add(at);
                let before = number.checked_sub(1).and_then(|before| self.nodes.get(before));
                let width = node.name.chars().count().saturating_add(2);
                let blank = " ".repeat(LINK_COLUMNS);
                if let Some(before) = before {
                    middle.push_str(&link(&before.scheme, node.is_there));
                    above.push_str(&blank);
                    below.push_str(&blank);
                } else if self.nodes.len() > ROW_MAX {
                    // Rows begin with the link from the row above, where there is one.
                    for line in [&mut above, &mut middle, &mut below] {
                        line.push_str(&blank);
                    }
                }
                if Some(number) == marked {
                    mark = self.mark.as_ref().map(|mark| (below.chars().count().saturating_add(2), mark));
                }
                let (flat, wall) = if node.is_there { ("─", "│") } else { ("┄", "┆") };
                let flat = flat.repeat(width);
                let next_is_there = self.nodes.get(number.saturating_add(1)).map(|next| next.is_there);
                let left = if before.is_some() && node.is_there { "┤" } else { wall };
                let right = if node.is_there && next_is_there == Some(true) { "├" } else { wall };
                above.push_str(&format!("┌{flat}┐"));
                middle.push_str(&format!("{left} {} {right}", node.name));
                below.push_str(&format!("└{flat}┘"));
            }
            lines.extend([above, middle, below]);
            if let Some((column, mark)) = mark {
                // In front of it where there is more room.
                let text = format!("{mark} ▲");
                let before = column.saturating_add(2).saturating_sub(text.chars().count());
                lines.push(match before {
                    0 => format!("{}▲ {mark}", " ".repeat(column)),
                    before => format!("{}{text}", " ".repeat(before)),
                });
            }
        }
        lines
    }
}

/// The link to a node over `scheme`.
fn link(scheme: &str, is_up: bool) -> String {
    let line = if is_up { '─' } else { ' ' };
    let word = if is_up { scheme } else { "" };
    let mut drawn = format!("{line}{word}");
    while drawn.chars().count() < LINK_COLUMNS {
        drawn.push(line);
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(count: usize) -> Picture {
        let drawn = |number: usize| Drawn {
            name: format!("n{number}"),
            scheme: if number % 2 == 1 { "quic" } else { "tcp" }.into(),
            is_there: true,
        };
        Picture { nodes: (1..=count).map(drawn).collect(), mark: None }
    }

    #[test]
    fn nodes_stand_in_a_line_with_what_links_them() {
        let expected = [
            "┌────┐      ┌────┐      ┌────┐",
            "│ n1 ├─quic─┤ n2 ├─tcp──┤ n3 │",
            "└────┘      └────┘      └────┘",
        ];
        assert_eq!(picture(3).lines(), expected);
        let expected = [
            "┌────┐      ┌────┐      ┌┄┄┄┄┐",
            "│ n1 ├─quic─┤ n2 │      ┆ n3 ┆",
            "└────┘      └────┘      └┄┄┄┄┘",
            "              ▲ 1 message on the disk of n2",
        ];
        assert_eq!(picture(3).without_the_last("1 message on the disk of n2").lines(), expected);
    }

    #[test]
    fn it_fits_eighty_columns_however_many_they_are() {
        for count in 3..=16 {
            let picture = picture(count).without_the_last("1 message on the disk of n15");
            for line in picture.lines() {
                // The demo moves it in by three.
                assert!(line.chars().count() <= 77, "{count}: {line}");
            }
            assert!(picture.lines().iter().any(|line| line.contains(&format!("┆ n{count} ┆"))));
        }
    }
}
