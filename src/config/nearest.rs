//! The valid word that a wrong one most likely stands for.

/// The candidate with the fewest edits to `word`, the first of several equal ones; none where
/// nothing is near enough to be a slip (more than half of the word would have to change).
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let limit = word.chars().count().div_ceil(2);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= limit)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal
/// string alignment).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut two_up = vec![0; b.len() + 1];
    let mut up: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = a[i - 1] == b[j - 1];
            row[j] = (up[j] + 1).min(row[j - 1] + 1).min(up[j - 1] + usize::from(!same));
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                row[j] = row[j].min(two_up[j - 2] + 1);
            }
        }
        two_up = std::mem::replace(&mut up, row);
    }
    up[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        let check = |a: &str, b: &str, edits: usize| assert_eq!(distance(a, b), edits, "{a} {b}");
        check("", "", 0);
        check("", "abc", 3);
        check("listen", "lisen", 1);
        check("listen", "lsiten", 1);
        check("kitten", "sitting", 3);
        check("abc", "", 3);
    }

    #[test]
    fn only_near_words_are_suggested() {
        let words = ["listen", "peers", "network"];
        assert_eq!(nearest("lisen", words), Some("listen"));
        assert_eq!(nearest("Network", words), Some("network"));
        assert_eq!(nearest("zzzz", words), None);
    }
}
