//! Bytes read as a list of things that happen: the language of the targets that drive a core.
//!
//! Every string of bytes is a script, and a missing byte is a zero, so that a fuzzer may cut and join
//! scripts as it likes and a small change of the bytes is a small change of the story.

use std::time::Duration;

/// Steps of one script; a fuzzer gains nothing by longer ones.
const STEPS_MAX: usize = 400;

/// Reads a script.
#[derive(Debug, Clone)]
pub(crate) struct Script<'a> {
    bytes: &'a [u8],
    steps: usize,
}

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, steps: 0 }
    }

    /// The first byte of the next step; none at the end.
    pub(crate) fn step(&mut self) -> Option<u8> {
        self.steps += 1;
        (self.steps <= STEPS_MAX && !self.bytes.is_empty()).then(|| self.u8())
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// One of `count`, from 0.
    pub(crate) fn below(&mut self, count: u8) -> u8 {
        self.u8() % count.max(1)
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// A number that is often at one of its ends: there the faults are.
    pub(crate) fn edge(&mut self, max: u64) -> u64 {
        match self.u8() {
            0 => 0,
            1 => 1,
            2 => max,
            3 => max.saturating_sub(1),
            4 => max / 2,
            small @ 5..=127 => u64::from(small).min(max),
            _ => u64::from_be_bytes(self.array()).min(max),
        }
    }

    /// Mostly milliseconds, at times a month.
    pub(crate) fn pause(&mut self) -> Duration {
        match self.u8() {
            short @ 0..=99 => Duration::from_millis(u64::from(short)),
            seconds @ 100..=199 => Duration::from_millis(u64::from(seconds - 99) * 350),
            minutes @ 200..=249 => Duration::from_secs(u64::from(minutes - 199) * 60),
            days => Duration::from_secs(u64::from(days - 249) * 5 * 86_400),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let there = self.take(N);
        out.iter_mut().zip(there).for_each(|(to, from)| *to = *from);
        out
    }

    /// So many bytes, or as many as are left.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.bytes.split_at(count.min(self.bytes.len()));
        self.bytes = rest;
        taken
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.bytes)
    }
}
