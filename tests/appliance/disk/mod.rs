//! The store on disk: durability, failing disks, backups, imports and exports.

mod damage;
mod durability;
mod from_kaltura;
mod linearizability;
mod transfer;
