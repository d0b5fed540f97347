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
// # Without reservation
//
// A pool with PoolSpec.Direct has no reservation: single addresses of its network
// are put on hold, next to VMs and to others who hold. The hold is the only
// arbiter then, and a bad witness: it has no owner, a second one is refused
// whoever made the first, and a release takes away whatever hold is there. So
// whose a hold is stands in the record and nowhere else, and each call is made
// once at most.
//
//	Claiming → (hold) → Ahead → (taken) → Active → Releasing → Quarantined
//	              ↓       ↑ ↓                                      |
//	           SetAside   | Ending → (release) → record deleted    |
//	                      +----------------------------------------+
//
// Ahead says: the hold is ours. Allocate takes such a record, compare-and-swap,
// without a call to OpenNebula; ReserveAhead of them are kept. A released
// address keeps its hold, goes through quarantine and is Ahead again; what is
// more than a chunk above ReserveAhead is let go. Both addresses of a pair have
// a record from the hold to its end.
//
// A crash, or a lost answer, between any two lines:
//
//   - After Create(Claiming), before Hold: no hold is ours. Nobody but the maker
//     goes on from Claiming; when the fence is over, somebody marks the record
//     SetAside, and deletes it when a reading that began another fence later
//     shows no hold.
//   - After Hold, before its answer, or before Ahead is written: the same way,
//     but the reading shows a hold. Ours, or that of somebody who was faster than
//     us: there is no telling. The record stays SetAside: the address is neither
//     given nor released, and an event says so. It ends when the hold is gone, or
//     when a person deletes the record.
//   - A refusal is an answer: the maker, who made one call, knows that nothing
//     is there of it, and deletes the record, if it is the version that it wrote.
//   - After Take, Releasing, Quarantined: the record says that the hold is ours.
//   - After Mark(Ending), before Release or its answer: SetAside after the fence;
//     then the reading decides as above. Nobody sends a second release: the
//     first may have worked, and the hold be another's by now. The one release
//     meets our own hold, since it is made once, from Ahead, by who won the
//     compare-and-swap.
//   - After Release, before Delete: SetAside, no hold, deleted.
//
// That a call of a dead process still arrives is what the fence is for: calls
// about holds end half a fence after the record was written. A record is
// deleted after a reading that began a fence after it was seen SetAside; and an
// address without record is put on hold by whoever makes a record first.
//
// A hold that somebody took away shows at the next comparison. Of an active
// address it is put back: the record says Doubtful (OnHold false) first, and
// again OnHold when OpenNebula has said yes; a refusal is an AddressConflict. A
// Doubtful one that is released ends SetAside, not Ahead. Two things cannot be
// seen: a hold that was replaced by a stranger's between two comparisons, and,
// if a record is deleted by force, that the hold was ours.
//
// # Failure
//
// Each pool has its own back-off (0.2 s to 30 s), so that one that fails never
// delays another. A pool that was ready stays ready while OpenNebula does not
// answer. Errors wrap the sentinels of this package.
package ipam
