package ipam

// freeEntry is a free address in a heap. It is valid until the address is
// taken: then it stays in the heap and is skipped.
type freeEntry struct {
	used, ticket uint64
	half         *half
}

func (e freeEntry) valid() bool { return e.half.free && e.half.ticket == e.ticket }

// freeHeap implements heap.Interface: never used before longest unused, then
// by address.
type freeHeap []freeEntry

func (q freeHeap) Len() int { return len(q) }

func (q freeHeap) Less(i, j int) bool {
	if q[i].used != q[j].used {
		return q[i].used < q[j].used
	}
	return q[i].half.addr.Less(q[j].half.addr)
}

func (q freeHeap) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

// Push implements heap.Interface.
func (q *freeHeap) Push(e any) { *q = append(*q, e.(freeEntry)) }

// Pop implements heap.Interface.
func (q *freeHeap) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = freeEntry{}
	*q = (*q)[:last]
	return e
}
