//! The two formats of envelope as types of their own, for code that means one of them.

use super::{Envelope, EnvelopeFormat};

/// Makes a type for the envelopes of one format.
macro_rules! of_one_format {
    ($(#[$doc:meta])* $name:ident, $format:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(Envelope);

        impl $name {
            /// The envelope, of whichever format.
            pub fn into_inner(self) -> Envelope {
                self.0
            }
        }

        impl TryFrom<Envelope> for $name {
            type Error = Envelope;

            /// Hands an envelope of the other format back.
            fn try_from(envelope: Envelope) -> Result<Self, Envelope> {
                match envelope.header().format() {
                    EnvelopeFormat::$format => Ok(Self(envelope)),
                    _ => Err(envelope),
                }
            }
        }

        impl From<$name> for Envelope {
            fn from(envelope: $name) -> Envelope {
                envelope.0
            }
        }

        impl AsRef<Envelope> for $name {
            fn as_ref(&self) -> &Envelope {
                &self.0
            }
        }
    };
}

of_one_format! {
    /// An envelope of format 1: source and destination are 32-byte public keys. Read and forwarded,
    /// not sent.
    MeshEnvelope, V1
}

of_one_format! {
    /// An envelope of format 2: source and destination are 16-byte addresses. What nodes send.
    MeshEnvelopeV2, V2
}
