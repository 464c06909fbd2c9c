use super::*;

fn variables() -> Variables {
    [("ANNA", "a1".repeat(16)), ("BERT", "b2".repeat(16))].map(|(k, v)| (k.to_owned(), v)).into()
}

fn mistakes(text: &str) -> Vec<String> {
    let error = Playbook::parse(text, &variables()).unwrap_err();
    error.mistakes.iter().map(Mistake::to_string).collect()
}

#[test]
fn every_action_is_read() {
    let text = r#"
title = "for ${ANNA}"
[[step]]
action = "mesh-trace"
to = "${BERT}"
[[step]]
action = "send"
to = "bert"
text = "costs $${5}"
wait = "30s"
[[step]]
action = "send"
to = "bert"
text = "x"
[[step]]
action = "expect"
field = "hops"
at_most = 2
[[step]]
action = "expect"
from = "bert"
contains = "hi"
timeout = "1m"
take = true
[[step]]
action = "wait"
for = "peers >= 2"
[[step]]
action = "wait"
for = "route:${BERT}"
timeout = "2s"
[[step]]
action = "wait"
for = "10ms"
[[step]]
action = "wait"
for = "message"
"#;
    let playbook = Playbook::parse(text, &variables()).unwrap();
    assert_eq!(playbook.title(), Some(format!("for {}", "a1".repeat(16)).as_str()));
    let bert = "b2".repeat(16);
    let wait = |until, timeout| Action::Wait { until, timeout };
    let send = |text: &str, wait, expect| Action::Send { to: "bert".into(), text: text.into(), wait, expect };
    let (s1, s30) = (Duration::from_secs(2), Duration::from_secs(30));
    let expected = [
        Action::Command(SlashCommand::MeshTrace { to: bert.clone() }),
        send("costs ${5}", Some(s30), DeliveryStatus::Delivered),
        send("x", None, DeliveryStatus::Queued),
        Action::ExpectReply(Condition { field: "hops".into(), test: condition::Test::AtMost(2.0) }),
        Action::ExpectMessage {
            from: Some("bert".into()),
            text: TextTest::Contains("hi".into()),
            timeout: Duration::from_secs(60),
            take: true,
        },
        wait(Until::Peers(2), s30),
        wait(Until::Route(bert), s1),
        wait(Until::Passed(Duration::from_millis(10)), s30),
        wait(Until::Message, s30),
    ];
    let actions: Vec<&Action> = playbook.steps().iter().map(|step| &step.action).collect();
    assert_eq!(actions, expected.iter().collect::<Vec<_>>());
    assert_eq!(playbook.steps()[0].line, 3);
    assert_eq!(playbook.steps()[1].name, "send");
}

#[test]
fn all_mistakes_are_said_at_once_with_their_places() {
    let text = r#"tilte = "x"
[[step]]
action = "sned"
[[step]]
action = "send"
too = "${BRET}"
wait = "soon"
[[step]]
action = "expect"
at_least = 2
[[step]]
action = "expect"
field = "hops"
[[step]]
action = "wait"
for = "peers>2"
[[step]]
text = "x"
[[step]]
action = "send"
to = "bert"
text = "${BRET}"
expect = "delivred"
"#;
    let found = mistakes(text);
    let check = |place: &str, part: &str| {
        let is_there = found.iter().any(|line| line.starts_with(place) && line.contains(part));
        assert!(is_there, "{place} {part} is missing in {found:#?}");
    };
    check("1:1:", "unknown key tilte: did you mean title?");
    check("3:10:", "unknown action \"sned\": did you mean send?");
    check("6:1:", "unknown key too of send: did you mean to?");
    check("5:10:", "send needs `to`");
    check("5:10:", "send needs `text`");
    check("7:8:", "wait: ");
    check("10:12:", "at_least needs the `field`");
    check("13:9:", "does not say");
    check("16:7:", "peers>=2");
    check("17:1:", "this step has no action");
    check("22:8:", "no variable is called BRET: did you mean BERT?");
    check("23:10:", "did you mean delivered?");
    assert_eq!(found.len(), 12, "{found:#?}");
}

#[test]
fn what_is_no_playbook_is_refused() {
    assert_eq!(mistakes(""), ["1:1: no steps: write [[step]] entries, each with an action"]);
    assert!(mistakes("[step]\naction = \"note\"\n")[0].contains("[[step]]"));
    assert!(mistakes("[[step]]\naction = \"note\ntext = 1\n")[0].starts_with("2:"));
    assert!(
        mistakes("[[step]]\naction = \"note\"\ntext = \"${\"\n")[0].starts_with("3:8: a `${` is not closed")
    );
    assert!(mistakes("[[step]]\naction = \"note\"\ntext = 5\n")[0].starts_with("3:8: expected a string"));
    let two = "[[step]]\naction = \"expect\"\nfield = \"x\"\nequals = 1\nat_most = 2\n";
    assert!(mistakes(two)[0].contains("equals and at_most are two"));
}
