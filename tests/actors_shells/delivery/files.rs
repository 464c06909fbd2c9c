//! Files on their way in: nothing is said of a chunk that a crash could take back, and what the
//! store does not take now is tried again until it does.

use quicprochat_mesh::{
    crypto::{FileKey, hash::sha256},
    storage::{OutboxRow, PageLimit, PartialRow},
    wire::{
        TransferTag,
        content::{Chunk, Manifest, Sealed},
        limits::CHUNK_BYTES,
        receipt::{ChunkReceipt, TransferState},
    },
};

use super::*;

/// A file of the peer's.
struct File {
    manifest: Manifest,
    content: Vec<u8>,
}

impl File {
    fn of_chunks(uid: u8, chunks: usize) -> Self {
        let content: Vec<u8> = (0..chunks * CHUNK_BYTES).map(|n| (n % 251) as u8).collect();
        let manifest = Manifest {
            uid: MessageUid([uid; 16]),
            name: "file".to_owned(),
            sent_at_unix_ms: 0,
            length: content.len() as u64,
            sha256: sha256(&[&content]),
            file_key: [uid; 32],
        };
        Self { manifest, content }
    }

    fn tag(&self) -> TransferTag {
        FileKey::from_bytes(self.manifest.file_key).transfer_tag()
    }
}

impl Bench {
    fn manifest_arrives(&mut self, file: &File) -> PacketId {
        let packet = self.peer.seal(&self.own_keys.record, &Sealed::Manifest(file.manifest.clone()));
        let id = packet.packet_id;
        self.arrives(packet);
        id
    }

    fn chunk_arrives(&mut self, file: &File, index: u32) -> PacketId {
        let total = file.manifest.chunks();
        let bytes = file.content.chunks(CHUNK_BYTES).nth(index as usize).unwrap();
        let key = FileKey::from_bytes(file.manifest.file_key);
        let sealed = key.seal_chunk(&file.manifest.uid, index, total, bytes).unwrap();
        let chunk = Chunk { tag: file.tag(), index, total, ciphertext: sealed.into() };
        let packet = self.peer.packet(EnvelopeKind::CHUNK, self.own.address(), &chunk.encode());
        let id = packet.packet_id;
        self.arrives(packet);
        id
    }

    /// Until something is said of a file.
    async fn next_progress(&mut self) -> (Vec<PacketId>, ChunkReceipt) {
        loop {
            let mut receipt = self.next_receipt().await;
            if let Some(chunks) = receipt.chunks.pop() {
                return (receipt.packet_ids, chunks);
            }
        }
    }

    async fn opened(&mut self, file: &File) {
        let id = self.manifest_arrives(file);
        let (packets, chunks) = self.next_progress().await;
        assert_eq!((packets, chunks.state), (vec![id], TransferState::Partial));
    }
}

#[test]
fn a_chunk_is_receipted_after_the_commit_of_its_bitmap_and_so_is_a_copy_of_it() {
    with_virtual_time(|| async {
        let mut bench = start();
        let file = File::of_chunks(1, 3);
        bench.opened(&file).await;
        bench.store.rows.hold_completions();
        let first = bench.chunk_arrives(&file, 0);
        expect_silence(&mut bench.originated, secs(10)).await;
        // Its bytes are on the disk, and no record says so.
        let copy = bench.chunk_arrives(&file, 0);
        expect_silence(&mut bench.originated, secs(10)).await;
        bench.store.rows.release();
        let mut named = Vec::new();
        while named.len() < 2 {
            let (packets, chunks) = bench.next_progress().await;
            assert!(chunks.has(0) && !chunks.has(1));
            named.extend(packets);
        }
        named.sort();
        let mut sent = [first, copy];
        sent.sort();
        assert_eq!(named, sent);
    });
}

#[test]
fn progress_the_store_does_not_take_is_stored_later_without_another_packet() {
    with_virtual_time(|| async {
        let mut bench = start();
        let file = File::of_chunks(1, 2);
        bench.opened(&file).await;
        bench.store.rows.fail_next(MemFault::NoSpace);
        bench.store.rows.fail_next(MemFault::NoSpace);
        let id = bench.chunk_arrives(&file, 0);
        let (packets, chunks) = bench.next_progress().await;
        assert!(packets == [id] && chunks.has(0) && !chunks.has(1));
    });
}

#[test]
fn a_whole_file_enters_the_inbox_however_often_the_store_refuses() {
    with_virtual_time(|| async {
        let mut bench = start();
        for (uid, is_full) in [(1, false), (2, true)] {
            let file = File::of_chunks(uid, 2);
            bench.opened(&file).await;
            bench.chunk_arrives(&file, 0);
            bench.next_progress().await;
            bench.store.rows.hold_completions();
            bench.chunk_arrives(&file, 1);
            tokio::time::sleep(secs(1)).await;
            // It is checked now, and cannot enter.
            bench.store.rows.set_full(is_full);
            if !is_full {
                bench.store.rows.fail_next(MemFault::NoSpace);
                bench.store.rows.fail_next(MemFault::NoSpace);
            }
            bench.store.rows.release();
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            assert_eq!(*bench.inbox.borrow(), u64::from(uid) - 1);
            if is_full {
                tokio::time::sleep(secs(300)).await;
                bench.store.rows.set_full(false);
            }
            bench.inbox.wait_for(|count| *count == u64::from(uid)).await.unwrap();
            let (_, chunks) = bench.next_progress().await;
            assert_eq!(chunks.state, TransferState::Complete);
            // And once.
            assert_eq!(bench.counts().await.inbox, u64::from(uid));
        }
    });
}

#[test]
fn a_file_that_began_above_the_reserve_ends_below_it_and_none_begins() {
    with_virtual_time(|| async {
        let mut bench = start();
        let file = File::of_chunks(1, 2);
        bench.opened(&file).await;
        bench.store.rows.set_below_reserve(true);
        let other = bench.manifest_arrives(&File::of_chunks(2, 2));
        let refused = expect_within(&mut bench.refused, PATIENCE).await;
        assert_eq!(refused.refused, [(other, RefuseReason::StoreFull)]);
        bench.chunk_arrives(&file, 0);
        assert!(bench.next_progress().await.1.has(0));
        bench.chunk_arrives(&file, 1);
        assert_eq!(bench.next_progress().await.1.state, TransferState::Complete);
        assert_eq!(bench.counts().await.inbox, 1);
    });
}

#[test]
fn a_whole_file_whose_bytes_are_gone_begins_anew() {
    with_virtual_time(|| async {
        let mut bench = start();
        let file = File::of_chunks(1, 1);
        bench.opened(&file).await;
        bench.store.rows.hold_completions();
        bench.chunk_arrives(&file, 0);
        tokio::time::sleep(secs(1)).await;
        let blobs = bench._dir.path().join("blobs");
        let mut removed = 0;
        for dir in std::fs::read_dir(&blobs).unwrap() {
            for blob in std::fs::read_dir(dir.unwrap().path()).unwrap() {
                std::fs::remove_file(blob.unwrap().path()).unwrap();
                removed += 1;
            }
        }
        assert_eq!(removed, 1);
        bench.store.rows.release();
        eventually("it to be given up", PATIENCE, async || {
            (bench.counts().await.partials == 0).then_some(())
        })
        .await;
        bench.chunk_arrives(&file, 0);
        loop {
            let (_, chunks) = bench.next_progress().await;
            if chunks.state == TransferState::ManifestWanted {
                break;
            }
        }
        bench.opened(&file).await;
        bench.chunk_arrives(&file, 0);
        assert_eq!(bench.next_progress().await.1.state, TransferState::Complete);
    });
}

#[test]
fn strangers_open_four_files_with_all_of_them_and_those_who_are_known_more() {
    with_virtual_time(|| async {
        let mut bench = start();
        tokio::time::sleep(secs(1)).await;
        let record = bench.own_keys.record.clone();
        let manifest_of = |seed: u8| Signer::new(seed).manifest(&record, seed, 100_000);
        // All at once: none of them is stored when the last is looked at.
        let envelopes: Vec<_> = (20..25).map(manifest_of).collect();
        bench.actor.do_send(DeliverLocal { link: None, via: "mem", ingress: None, envelopes });
        let refused = expect_within(&mut bench.refused, PATIENCE).await.refused;
        assert!(matches!(refused[..], [(_, RefuseReason::StoreFull)]), "{refused:?}");
        assert_eq!(bench.counts().await.partials, 4);
        let known = LocalOp::KvPut {
            namespace: Namespace::Known,
            key: bench.peer.address().0.to_vec(),
            value: Vec::new(),
        };
        ask_local(&bench.store, vec![known]).unwrap().await.unwrap();
        let file = File::of_chunks(1, 2);
        bench.manifest_arrives(&file);
        eventually("a fifth", PATIENCE, async || (bench.counts().await.partials == 5).then_some(())).await;
    });
}

#[test]
fn a_file_that_does_not_come_forward_is_gone_after_a_day_whatever_its_signer_says() {
    with_virtual_time(|| async {
        let mut bench = start();
        let (idle, moves) = (File::of_chunks(1, 3), File::of_chunks(2, 3));
        bench.opened(&idle).await;
        bench.opened(&moves).await;
        tokio::time::sleep(secs(3600)).await;
        bench.chunk_arrives(&moves, 0);
        bench.next_progress().await;
        // Dedup remembers them for an hour more than a day.
        tokio::time::sleep(secs(22 * 3600 + 1800)).await;
        assert_eq!(bench.counts().await.partials, 2);
        tokio::time::sleep(secs(3600)).await;
        assert_eq!(bench.counts().await.partials, 1, "one has come forward");
        tokio::time::sleep(secs(3600)).await;
        assert_eq!(bench.counts().await.partials, 0);
    });
}

#[test]
fn what_arrives_while_the_outbox_is_read_waits_and_a_file_goes_on_where_it_was() {
    with_virtual_time(|| async {
        let mut bench = start();
        let file = File::of_chunks(1, 3);
        bench.opened(&file).await;
        bench.chunk_arrives(&file, 0);
        bench.next_progress().await;
        bench.send("on its way").await;
        drained(&bench.actor, &mut bench.parent).await;

        // The store is busy when it starts.
        bench.store.rows.set_full(true);
        let config = OutboxConfig { entries_max: 1, ..OutboxConfig::default() };
        let mut again = start_with(bench.store.clone(), config);
        again._keys.send_replace(bench.own_keys.clone());
        again.own_keys = bench.own_keys.clone();
        let manifest = again.manifest_arrives(&file);
        let sending = again.actor.send(again.content(&b"no room"[..]));
        tokio::time::sleep(secs(10)).await;
        assert!(again.parent.is_alive());
        bench.store.rows.set_full(false);

        let refused = sending.await.unwrap();
        assert!(matches!(refused, Err(MeshError::Refused(_))), "{refused:?}");
        let (packets, chunks) = again.next_progress().await;
        assert_eq!((packets, chunks.state), (vec![manifest], TransferState::Partial));
        assert!(chunks.has(0) && !chunks.has(1));
        let op = LocalOp::PartialPage { after: None, limit: PageLimit::default() };
        let rows = ask_local(&again.store, vec![op]).unwrap().await.unwrap().remove(0);
        let LocalOutcome::Partials(page) = rows else { panic!("{rows:?}") };
        let record = quicprochat_mesh::proto::delivery::record::PartialRecord::decode(&page.rows[0].state);
        assert_eq!(record.unwrap().bitmap, [1]);
    });
}

#[test]
fn rows_that_cannot_be_read_are_removed_and_counted_and_the_rest_goes_on() {
    with_virtual_time(|| async {
        let mut bench = start();
        let uid = bench.send("readable").await;
        drained(&bench.actor, &mut bench.parent).await;
        let row = OutboxRow {
            uid: MessageUid([3; 16]),
            destination: bench.peer.address(),
            created_unix_s: 0,
            expires_s: u64::MAX,
            state: Vec::new(),
            body: b"from another world".to_vec(),
        };
        let file = PartialRow {
            source: bench.peer.address(),
            tag: File::of_chunks(1, 1).tag(),
            until_unix_s: u64::MAX,
            state: b"from another world".to_vec(),
        };
        let ops = vec![LocalOp::OutboxPut(row), LocalOp::PartialPut(file)];
        ask_local(&bench.store, ops).unwrap().await.unwrap();
        assert_eq!((bench.counts().await.outbox, bench.counts().await.partials), (2, 1));

        let mut again = start_on(bench.store.clone());
        let lines = again.actor.send(ListOutbox).await.unwrap();
        assert_eq!(lines.iter().map(|line| line.uid).collect::<Vec<_>>(), [uid]);
        tokio::time::sleep(secs(1)).await;
        assert_eq!((again.counts().await.outbox, again.counts().await.partials), (1, 0));
        assert!(again.parent.is_alive());
    });
}
