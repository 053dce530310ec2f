//! The store on disk: durability, failing disks, backups, imports and exports.

mod damage;
mod durability;
mod faults;
mod linearizability;
mod transfer;
