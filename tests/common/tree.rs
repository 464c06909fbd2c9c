//! Every command of `qpc`, as its help lists them.

#![allow(unreachable_pub, reason = "each test binary has its own copy")]

/// Names of the commands that a page of help lists, `help` left out.
fn listed(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    list.take_while(|line| !line.is_empty())
        // What a long description goes on with is moved in further.
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// Every visible command with its page of help: the program itself, groups and commands. `help` runs
/// `qpc` with arguments and gives its stdout.
pub fn pages(help: &dyn Fn(&[&str]) -> String) -> Vec<(Vec<String>, String)> {
    let mut pages = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(words) = open.pop() {
        let arguments: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
        let page = help(&arguments);
        for name in listed(&page) {
            open.push(words.iter().cloned().chain([name]).collect());
        }
        pages.push((words, page));
    }
    pages.sort();
    pages
}
