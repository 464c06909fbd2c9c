//! What a line means in the course of a session.

use quicprochat_mesh::{
    SlashCommand, SlashReply,
    api::ApiError,
    slash::{Party, SlashError},
};

/// What a session remembers from line to line.
#[derive(Debug, Default)]
pub struct Session {
    partner: Option<Party>,
}

impl Session {
    /// What a line asks for; none for an empty one. A line without a slash is a message to whom the
    /// conversation is with, and so is one with two: the second belongs to the text.
    pub fn read(&self, line: &str) -> Result<Option<SlashCommand>, ApiError> {
        let line = line.trim();
        let text = match line.strip_prefix('/') {
            None if line.is_empty() => return Ok(None),
            None => line,
            Some(text) if text.starts_with('/') => text,
            Some(_) => {
                return SlashCommand::parse(line).map(Some).map_err(|error: SlashError| error.into());
            }
        };
        let Some(partner) = &self.partner else {
            return Err(ApiError::usage(
                "this line goes to nobody: /to NAME picks somebody to talk to, /msg NAME TEXT sends one \
                 message, /help lists all commands",
            ));
        };
        Ok(Some(SlashCommand::Msg { to: partner.address.to_string(), text: text.to_owned() }))
    }

    /// Takes from a reply what the lines after it depend on.
    pub fn note(&mut self, reply: &SlashReply) {
        if let SlashReply::Conversation(partner) = reply {
            self.partner.clone_from(partner);
        }
    }

    /// Whom lines go to.
    pub fn partner(&self) -> Option<&Party> {
        self.partner.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use quicprochat_mesh::wire::Address;

    use super::*;

    #[test]
    fn lines_without_a_slash_are_messages() {
        let mut session = Session::default();
        assert_eq!(session.read("  ").unwrap(), None);
        assert_eq!(session.read("/inbox").unwrap(), Some(SlashCommand::Inbox));
        assert!(session.read("hello").unwrap_err().message.contains("/to NAME"));
        let party = Party { address: Address([0xa1; 16]), name: None };
        session.note(&SlashReply::Conversation(Some(party)));
        let msg = |text: &str| Some(SlashCommand::Msg { to: "a1".repeat(16), text: text.into() });
        assert_eq!(session.read(" don't \"go\" ").unwrap(), msg("don't \"go\""));
        assert_eq!(session.read("//etc is a path").unwrap(), msg("/etc is a path"));
        session.note(&SlashReply::Conversation(None));
        assert!(session.read("hello").is_err());
    }
}
