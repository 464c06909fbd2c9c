use proptest::prelude::*;

use super::*;

fn parse(line: &str) -> SlashCommand {
    SlashCommand::parse(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}

#[test]
fn every_command_of_the_table_is_read() {
    let arguments = |row: &CommandHelp| match row.arguments {
        "" | "…" => "",
        "ADDRESS" | "[ADDRESS]" | "NAME" => " anna",
        "NAME ADDRESS" => " anna a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1",
        "ADDRESS TEXT" => " anna hello there",
        "TEXT" => " hello there",
        "[COUNT]" => " 5",
        "[COMMAND]" => " mesh trace",
        other => panic!("{other}"),
    };
    for row in &COMMANDS {
        let line = format!("/{}{}", row.name, arguments(row));
        match (row.arguments, SlashCommand::parse(&line)) {
            ("…", Err(SlashError::NotBuilt { .. })) => {}
            (_, Ok(command)) => assert_eq!(command.to_string(), line),
            (_, Err(error)) => panic!("{line}: {error}"),
        }
    }
}

#[test]
fn words_and_texts_are_told_apart() {
    let msg = |to: &str, text: &str| SlashCommand::Msg { to: to.into(), text: text.into() };
    assert_eq!(parse("/msg \"Anna Berg\" don't \"panic\""), msg("Anna Berg", "don't \"panic\""));
    assert_eq!(parse("  /msg anna \"two\\nlines\"  "), msg("anna", "two\nlines"));
    assert_eq!(parse("/to"), SlashCommand::To { to: None });
    assert_eq!(parse("/exit"), SlashCommand::Quit);
    assert_eq!(parse("/help /mesh   trace"), SlashCommand::Help { command: Some("mesh trace".into()) });
}

#[test]
fn what_is_wrong_is_said_with_what_is_right() {
    let check = |line: &str, expected: &str| {
        assert_eq!(SlashCommand::parse(line).unwrap_err().to_string(), expected, "{line}");
    };
    check("", "an empty line is no command: /help lists them");
    check("hello", "a command begins with a slash: /help lists them");
    check("/mgs anna x", "no command is called /mgs: did you mean /msg?");
    check("/trace anna", "no command is called /trace: did you mean /mesh trace?");
    check("/mesh paers", "no command is called /mesh paers: did you mean /mesh peers?");
    check("/zzzzzzzz", "no command is called /zzzzzzzz: /help lists them");
    check("/msg", "ADDRESS is missing: write /msg ADDRESS TEXT");
    check("/msg anna", "TEXT is missing: write /msg ADDRESS TEXT");
    check("/inbox now", "\"now\" is too much: write /inbox");
    check("/msg a1 x", "a1 is too short: give at least 8 hex digits of the address, or all 32");
    check("/recv many", "\"many\" is no count: give a number from 1 to 1000");
    check("/recv 0", "\"0\" is no count: give a number from 1 to 1000");
    check("/group new x", "/group is not built yet: this version knows no groups");
    check("/fapp query", "/fapp is not built yet: this version knows no appointments");
    check("/help trcae", "no command is called /trcae: did you mean /mesh trace?");
    check("/to \"anna", "the quote \" is not closed: close it, or write \\\" where a name begins with it");
}

fn name() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("a contact's name", |name| check_contact_name(name).is_ok())
}

fn command() -> impl Strategy<Value = SlashCommand> {
    let address = prop_oneof![
        name(),
        any::<[u8; 16]>().prop_filter_map("no reserved one", |bytes| {
            let address = crate::wire::Address(bytes);
            (!address.is_reserved()).then(|| address.to_string())
        })
    ];
    prop_oneof![
        (address.clone(), any::<String>()).prop_map(|(to, text)| SlashCommand::Msg { to, text }),
        any::<String>().prop_map(|text| SlashCommand::Broadcast { text }),
        proptest::option::of(address.clone()).prop_map(|to| SlashCommand::To { to }),
        (name(), any::<String>()).prop_map(|(name, address)| SlashCommand::ContactAdd { name, address }),
        name().prop_map(|name| SlashCommand::ContactRemove { name }),
        (1u32..=RECV_MAX).prop_map(|count| SlashCommand::Recv { count }),
        address.clone().prop_map(|to| SlashCommand::Ping { to }),
        address.prop_map(|to| SlashCommand::MeshTrace { to }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(command in command()) {
        prop_assert_eq!(SlashCommand::parse(&command.to_string()), Ok(command));
    }

    #[test]
    fn no_line_makes_it_panic(line in any::<String>(), words in "/?(msg|to|mesh|help|recv|contact)? ?[ \"'\\\\a-u{}0-9]*") {
        for line in [line, words] {
            if let Ok(command) = SlashCommand::parse(&line) {
                // Whatever is read can be written so that it is read as the same.
                prop_assert_eq!(SlashCommand::parse(&command.to_string()), Ok(command));
            }
        }
    }
}
