//! One file for each command: its options, and what it does with them. Beside them, what several share: [`chain`], [`identity`], [`medium`]
//! and [`publication`].

mod chain;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod cp;
pub(crate) mod df;
pub(crate) mod gc;
pub(crate) mod id;
mod identity;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod key;
pub(crate) mod ls;
pub(crate) mod medium;
mod publication;
pub(crate) mod publish;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod resolve;
pub(crate) mod rm;
pub(crate) mod serve;
pub(crate) mod tag;
pub(crate) mod trust;
