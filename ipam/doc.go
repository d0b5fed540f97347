// Package ipam gives addresses of OpenNebula networks to Services. It knows
// neither Kubernetes nor OpenNebula's API, only two ports: [Networks] and
// [Records].
//
// # What it does
//
// Each pool has one reservation: a child network of the pool's network, called
// <cluster>-<pool>, that belongs to this cluster alone and carries its UID.
// [Manager.Allocate] chooses a free address of the reservation from memory and
// creates its record. That is the allocation: the store refuses a second record
// for an address. Everything else follows behind, by one keeper goroutine per
// pool: it puts the address on hold in OpenNebula, reserves more before the
// reservation runs out, ends the hold of what is released, waits for the
// quarantine to end, deletes the record, and gives back what is not needed.
//
// # Guarantees
//
//   - An address has one record at most, and so one taker.
//   - A record is made only for an address in our reservation, so no other
//     cluster and no VM of somebody else can have it.
//   - Allocate makes no call to OpenNebula while an address is reserved ahead,
//     and works while OpenNebula is away. It blocks only while more addresses
//     are being reserved, never on another pool.
//   - N addresses cost N holds and N releases, and about log N calls to reserve
//     them. Restarting costs a few reads, however many records there are.
//   - A reservation with another cluster's UID is never touched.
//   - The hold of an address ends only when its record is Releasing and no
//     longer announced. Both halves of an IPv4/IPv6 pair live on one hold, which
//     ends with the last.
//   - What people change in OpenNebula behind our back is found at the next
//     comparison (Options.Interval): missing holds are put back, addresses that
//     left the reservation are reserved again, holds that belong to nobody are
//     released after a grace time. What cannot be repaired is an event.
//
// # A crash between any two lines
//
// The keeper is level-triggered: it looks at records and reservation and does
// what is missing. Nothing that matters is only in memory.
//
//   - After Reserve, before its answer: the reservation or range is found by
//     reading; the reservation by its name, which is its key. Without identity it
//     is adopted if it stays so for a while: its maker writes the identity soon
//     after making it, or not at all.
//   - After Create: the record is there, not on hold; the keeper puts it on hold.
//   - After Hold, before Update: the next Hold is refused, the reservation is
//     read once, and what is on hold in it is ours. At start it is read first.
//   - After Release, before Update: Release is done again, and does nothing.
//   - After Update to Quarantined: the time of release is in the record.
//   - While giving a range back: see below; the records expire by themselves.
//
// # Two processes at once
//
// Leader election leaves a moment in which an old leader still acts on an
// outdated view. Since the store arbitrates, it cannot give an address that has
// a record. That leaves addresses without record: could one be given that is
// not ours any more? Addresses leave a reservation in one way, by being given
// back, and so that is an allocation too: giveBack first makes a record without
// owner for each of them (a claim), and if one is taken nothing is given back.
// Claims outlive the call, which has half of Options.Fence as its deadline, by
// the other half and the quarantine. Whoever has an outdated view meets the
// claim at Create, or sees the record come and go; and an address whose record
// was released or ended by another's hand is not given before the reservation has been read
// anew. What remains is a process that is stopped between its last check of the
// deadline and the sending of the call and goes on after the fence, and one
// whose view of the records is older than the fence although it can write. Then
// an address may be lost from the reservation; it is reserved again at the next
// comparison, and if somebody was faster, that is an AddressConflict.
//
// All else that an old leader does is undone by the next comparison: it can end
// a hold of an address that was given anew, or release a hold as an orphan. The
// address stays in the reservation, and so ours, all the while.
//
// # Failure
//
// Each pool has its own back-off (0.2 s to 30 s), so that one that fails never
// delays another. A pool that was ready stays ready while OpenNebula does not
// answer. Errors wrap the sentinels of this package.
package ipam
