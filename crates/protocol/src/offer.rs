//! What the accepting side declares about itself in the handshake.

use crate::object::{Members, whole_number};
use crate::raw::{BadJson, Raw};
use crate::text::Text;

/// What a worker or a pool says about itself in its answer to the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// The version of the protocol it speaks.
    pub version: String,
    /// A name of this very process, random for each start, by which a pool notices that it reached
    /// itself. Empty if it was not given.
    pub instance: String,
    /// Its process id; 0 if it was not given.
    pub pid: u32,
    /// How many jobs it runs at once. Default 1; at least 1.
    pub capacity: u32,
    /// It runs jobs one after the other, in the order they came, and sends each answer before it
    /// starts the next. Default false, which is the careful reading.
    pub ordered: bool,
    /// How many bodies one call may carry. Default 0: no batches.
    pub batch: u32,
    /// What else it can do: `cancel`, `shm`, `offer`. Names that one doesn't know are kept and mean
    /// nothing.
    pub capabilities: Vec<String>,
}

impl Default for Offer {
    /// This version, one job at a time, nothing else.
    fn default() -> Offer {
        Offer {
            version: crate::PROTOCOL_VERSION.to_owned(),
            instance: String::new(),
            pid: 0,
            capacity: 1,
            ordered: false,
            batch: 0,
            capabilities: Vec::new(),
        }
    }
}

impl Offer {
    /// The capability of being told to stop a job that runs.
    pub const CANCEL: &'static str = "cancel";
    /// The capability of going on over rings in shared memory.
    pub const SHM: &'static str = "shm";
    /// The capability of answering a further handshake on a connection with what it then offers.
    pub const OFFER: &'static str = "offer";

    /// Whether it wants to be told of cancelled jobs.
    #[must_use]
    pub fn takes_cancel(&self) -> bool {
        self.capabilities.iter().any(|name| name == Offer::CANCEL)
    }

    /// Whether a pool that started it may go on over rings in shared memory.
    #[must_use]
    pub fn takes_shm(&self) -> bool {
        self.capabilities.iter().any(|name| name == Offer::SHM)
    }

    /// Whether it may be asked again, by a further handshake, what it offers.
    #[must_use]
    pub fn takes_offer(&self) -> bool {
        self.capabilities.iter().any(|name| name == Offer::OFFER)
    }

    /// Reads the `data` of a handshake's answer; the error says which field is wrong.
    pub(crate) fn read(data: Raw<'_>) -> Result<Offer, String> {
        let bad = |field: &str, what: &str| format!("`{field}` in the handshake must be {what}");
        let broken = |stop| BadJson::from(stop).to_string();
        let mut offer = Offer { version: String::new(), ..Offer::default() };
        let mut members = Members::open(data.as_str(), 0)
            .ok()
            .flatten()
            .ok_or_else(|| "`data` must be an object".to_owned())?;
        while let Some(key) = members.key().map_err(broken)? {
            let value = members.value().map_err(broken)?;
            match &*key {
                "version" => {
                    offer.version = read_text(value).ok_or_else(|| bad("version", "a string"))?;
                }
                "instance" => {
                    offer.instance = read_text(value).ok_or_else(|| bad("instance", "a string"))?;
                }
                "pid" => offer.pid = read_u32(value, 0).ok_or_else(|| bad("pid", "a number"))?,
                "capacity" => {
                    offer.capacity = read_u32(value, 1)
                        .filter(|capacity| *capacity > 0)
                        .ok_or_else(|| bad("capacity", "a number of at least 1"))?;
                }
                "ordered" => {
                    offer.ordered = value.parse().map_err(|_| bad("ordered", "true or false"))?;
                }
                "batch" => {
                    offer.batch = read_u32(value, 0).ok_or_else(|| bad("batch", "a number"))?;
                }
                "capabilities" => {
                    offer.capabilities =
                        value.parse().map_err(|_| bad("capabilities", "an array of strings"))?;
                }
                _ => {}
            }
        }
        if offer.version.is_empty() {
            return Err(bad("version", "a string, and must be there"));
        }
        Ok(offer)
    }
}

fn read_text(value: Raw<'_>) -> Option<String> {
    Text::from_value(value.as_str()).map(|text| text.decode().into_owned())
}

fn read_u32(value: Raw<'_>, default: u32) -> Option<u32> {
    let number = whole_number(value)?;
    Some(number.map_or(default, |number| u32::try_from(number).unwrap_or(u32::MAX)))
}
