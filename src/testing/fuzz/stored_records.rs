//! Any bytes as a record of the outbox, the inbox or a file on its way, as a damaged store may give
//! them. Fields of a later version are passed over, so there is more than one spelling; what was read
//! is still read the same once it was written.

use crate::proto::delivery::record::{InboxRecord, OutboxRecord, PartialRecord};

pub(super) fn run(data: &[u8]) {
    if let Ok(record) = OutboxRecord::decode(data) {
        assert!(OutboxRecord::decode(&record.encode()).is_ok_and(|again| again == record));
        assert!(record.lifetime().as_secs() > 0);
        let _ = (record.priority(), record.created_unix_s(), record.body.is_empty());
        if let Some(manifest) = record.manifest() {
            assert_eq!(manifest.length, record.body.len());
            let _ = manifest.chunks();
        }
    }
    if let Ok(record) = InboxRecord::decode(data) {
        assert!(InboxRecord::decode(&record.encode()).is_ok_and(|again| again == record));
    }
    if let Ok(record) = PartialRecord::decode(data) {
        assert!(PartialRecord::decode(&record.encode()).is_ok_and(|again| again == record));
        assert!(record.until_unix_s() <= record.dedup_until_unix_s);
        let completed = record.completed();
        assert!(completed.complete && completed.bitmap.is_empty() && completed.key() == record.key());
    }
}
