//! Who calls the pool from outside: listeners, their connections, and what is asked of them.

pub(crate) mod admin;
pub(crate) mod bind;
pub(crate) mod client;
mod farewell;
pub(crate) mod limits;
pub(crate) mod listener;
mod places;
pub(crate) mod reply;
mod rings;
mod serving;
mod tls;

use client::Client;

use crate::wire::Wire;

/// The name of a connection's client; one that is gone is mistaken for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClientKey {
    index: u32,
    generation: u32,
}

impl ClientKey {
    /// No client has it.
    const NOBODY: Self = Self { index: u32::MAX, generation: 0 };
}

/// The clients of a pool.
#[derive(Default)]
pub(crate) struct Clients {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
    descriptors: usize,
    any_over_rings: bool,
}

/// In this order: what every job looks at lies together.
#[repr(C)]
struct Place {
    generation: u32,
    client: Option<Client>,
}

impl Clients {
    pub(crate) fn insert(&mut self, client: Client) -> ClientKey {
        self.count += 1;
        self.descriptors += client.wire.descriptors();
        self.any_over_rings |= matches!(client.wire, Wire::Rings(_));
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, client: None });
            (self.places.len() - 1) as u32
        });
        let place = &mut self.places[index as usize];
        place.client = Some(client);
        ClientKey { index, generation: place.generation }
    }

    pub(crate) fn of(&mut self, key: ClientKey) -> Option<&mut Client> {
        let Place { generation, client } = self.places.get_mut(key.index as usize)?;
        if *generation == key.generation { client.as_mut() } else { None }
    }

    pub(crate) fn remove(&mut self, key: ClientKey) -> Option<Client> {
        let Place { generation, client } = self.places.get_mut(key.index as usize)?;
        if *generation != key.generation {
            return None;
        }
        let client = client.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(key.index);
        self.count -= 1;
        self.descriptors -= client.wire.descriptors();
        Some(client)
    }

    /// Whether one came over rings, be it gone by now.
    pub(crate) fn any_over_rings(&self) -> bool {
        self.any_over_rings
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// How many descriptors they take.
    pub(crate) fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// All of them, with their names.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ClientKey, &mut Client)> {
        self.places.iter_mut().enumerate().filter_map(|(index, Place { generation, client })| {
            let key = ClientKey { index: index as u32, generation: *generation };
            Some((key, client.as_mut()?))
        })
    }
}
