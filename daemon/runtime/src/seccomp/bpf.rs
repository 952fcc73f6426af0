//! Classic BPF for seccomp: instructions, and an emitter that writes a program back to front.
//!
//! Jumps in classic BPF only go forward, so a program written from its end knows the place of every
//! target when the jump to it is written: no fix-ups. A conditional jump reaches 255 instructions;
//! a target farther away is reached through an unconditional one placed right behind the jump.

use std::collections::HashMap;

use super::Error;

/// The longest program that the kernel takes (`BPF_MAXINSNS`, linux/bpf_common.h).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// The farthest that a conditional jump reaches, less one: reaching its other target may yet put
/// an instruction in between.
const NEAR_MAX: usize = 254;

/// `BPF_LD | BPF_W | BPF_ABS`: accumulator = word of `struct seccomp_data` at offset `k`.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(super) const IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`, unsigned.
pub(super) const IF_GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`, unsigned.
pub(super) const IF_AT_LEAST: u16 = 0x35;
/// `BPF_RET | BPF_K`.
pub(super) const RETURN: u16 = 0x06;

/// Offset of the system call's number in `struct seccomp_data` (linux/seccomp.h).
pub(super) const OFFSET_NUMBER: u32 = 0;
/// Offset of the interface, `AUDIT_ARCH_*`.
pub(super) const OFFSET_ARCH: u32 = 4;

/// Offset of the low half of an argument; the high half follows (both machines are little-endian).
pub(super) fn offset_low(argument: u8) -> u32 {
    16 + 8 * u32::from(argument)
}

/// Offset of the high half of an argument.
pub(super) fn offset_high(argument: u8) -> u32 {
    offset_low(argument) + 4
}

/// One instruction, `struct sock_filter` of linux/filter.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jump_true: u8,
    pub(super) jump_false: u8,
    pub(super) k: u32,
}

/// Size of an instruction in bytes.
pub(super) const INSTRUCTION_BYTES: usize = 8;

impl Instruction {
    fn to_bytes(self) -> [u8; INSTRUCTION_BYTES] {
        let [code0, code1] = self.code.to_ne_bytes();
        let [k0, k1, k2, k3] = self.k.to_ne_bytes();
        [
            code0,
            code1,
            self.jump_true,
            self.jump_false,
            k0,
            k1,
            k2,
            k3,
        ]
    }
}

/// A place in the program: the number of instructions from it to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Writes a program from its last instruction to its first.
#[derive(Debug, Default)]
pub(super) struct Emitter {
    reversed: Vec<Instruction>,
    /// Where each value was last returned.
    returns: HashMap<u32, Label>,
}

impl Emitter {
    /// Writes an instruction in front of all that is there.
    fn push(&mut self, code: u16, jumps: (u8, u8), k: u32) -> Label {
        self.reversed.push(Instruction {
            code,
            jump_true: jumps.0,
            jump_false: jumps.1,
            k,
        });
        Label(self.reversed.len())
    }

    /// How many instructions a jump written now would skip.
    fn distance(&self, to: Label) -> usize {
        self.reversed.len() - to.0
    }

    /// A place that returns `value`, written anew if none is within reach.
    pub(super) fn ret(&mut self, value: u32) -> Label {
        match self.returns.get(&value) {
            Some(&label) if self.distance(label) <= NEAR_MAX => label,
            _ => {
                let label = self.push(RETURN, (0, 0), value);
                self.returns.insert(value, label);
                label
            }
        }
    }

    /// Loads a word, then goes on at `next`.
    pub(super) fn load(&mut self, offset: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(LOAD, (0, 0), offset)
    }

    /// Masks the accumulator, then goes on at `next`.
    pub(super) fn and(&mut self, mask: u32, next: Label) -> Label {
        self.fall_to(next);
        self.push(AND, (0, 0), mask)
    }

    /// Compares the accumulator with `k`.
    pub(super) fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) -> Label {
        if yes == no {
            return yes;
        }
        let yes = self.near(yes);
        let no = self.near(no);
        // `near` keeps both within 255, as it puts in one instruction at most for each.
        let jump = |emitter: &Self, to| u8::try_from(emitter.distance(to)).unwrap_or(u8::MAX);
        let jumps = (jump(self, yes), jump(self, no));
        self.push(code, jumps, k)
    }

    /// A place within reach that leads to `to`.
    fn near(&mut self, to: Label) -> Label {
        if self.distance(to) <= NEAR_MAX {
            to
        } else {
            self.jump(to)
        }
    }

    /// Makes `to` what the instruction written next falls through to.
    fn fall_to(&mut self, to: Label) {
        if self.distance(to) != 0 {
            self.jump(to);
        }
    }

    fn jump(&mut self, to: Label) -> Label {
        // A program of 2^32 instructions cannot exist; one above the kernel's bound is refused.
        let distance = u32::try_from(self.distance(to)).unwrap_or(u32::MAX);
        self.push(JUMP, (0, 0), distance)
    }

    /// The program, to start at `entry`, as `struct sock_filter`s in native byte order.
    ///
    /// # Errors
    /// [`Error::TooLong`].
    pub(super) fn finish(mut self, entry: Label) -> Result<Vec<u8>, Error> {
        self.fall_to(entry);
        let instructions = self.reversed.len();
        if instructions > INSTRUCTIONS_MAX {
            return Err(Error::TooLong { instructions });
        }
        Ok(self
            .reversed
            .iter()
            .rev()
            .flat_map(|instruction| instruction.to_bytes())
            .collect())
    }
}
