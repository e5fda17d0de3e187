/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The least loaded of many real servers, without looking at each.
 *
 * A service whose scheduler goes by load (lc, wlc, sed, nq; lblc and lblcr when
 * they have to choose) and that has LOAD_FEWEST real servers or more has a tree.
 * Its leaves are the run's picks in their order, load and weight; each block of
 * eight has its least in the block above, of equals the first, so the root's
 * least is the one that a walk over all of them would find.
 *
 *   Loads that rise   (a new connection) are not entered.  What the tree says is
 *                     never more than the truth, so the least of the tree is
 *                     compared with its real server's counters; if these say
 *                     more, that is entered and the new least looked at.  Whose
 *                     load is what the tree says is the least of all, and of
 *                     equals the first: others have no less in truth than here.
 *   Loads that fall   (a connection ends, becomes inactive, an overload is over)
 *                     set a bit in their service's record, for the leaf's block
 *                     (mark_lighter()).  Who schedules next looks at these blocks.
 *   Another run       has another number: who finds that the tree is not of its
 *                     run makes it anew from the counters.
 *
 * So established connections pay nothing, and whoever ends one a look-up and at
 * most one atomic operation.
 *
 * One CPU at a time is at a service's tree.  The others wait for a moment, then
 * walk over all real servers, as is done without a tree: there is a right choice at
 * any time, whoever was stopped in the middle of what.  And no choice is made by the
 * tree alone: the real server's record has the last word.
 *
 * No fall is lost.  Its counter changes before its bit is set; the bit is cleared
 * before the counter is read; all three are full barriers.  A leaf's number is
 * written before the counters are read for a new tree: who did not see it when its
 * counter had changed is in that tree.
 *
 * The levels stand behind each other from the root down.
 */
#ifndef XLVS_LOAD_TREE_H
#define XLVS_LOAD_TREE_H

#include "run.h"

#define UNDECIDED (-2)    /* by the tree: walk over all */
#define BROKEN (-3)       /* the tree is at odds with itself, as after a program that slept on its way */
#define FANOUT_BITS 3     /* of LOAD_FANOUT */
#define LOAD_TRIES 12     /* risen loads that are entered for one choice */
#define TREE_WAITS 200    /* looks at a tree that another CPU is at */
#define NO_BLOCK 0xffffffffu
#define ENDLESS_LOAD halves(0, 1) /* of whoever must not be chosen: 1 by weight 0 */

static __always_inline __s32 overhead(const struct destination *destination)
{
	__s32 active = *(volatile __s32 *)&destination->active;

	return active * 256 + *(volatile __s32 *)&destination->inactive;
}

/* Whether load/weight is below that of the least so far, by cross-multiplication. */
static __always_inline int is_less(__s32 load, __u32 weight, __s32 least_load, __u32 least_weight)
{
	return (__s64)least_load * weight > (__s64)load * least_weight;
}

/* The same of two that are packed as in `struct load_block`. */
static __always_inline int is_lighter(__u64 load, __u64 least)
{
	return ((__s64)least >> 32) * (__u32)load > ((__s64)load >> 32) * (__u32)least;
}

/*
 * What a scheduler compares of a pick, packed.  lc, wlc: all connections; sed: the active
 * ones and the one to come; nq: likewise, and idle ones, however slow, come before all.
 */
static __always_inline __u64 load_of(const struct pick *pick, __u32 scheduler)
{
	struct destination *destination = usable(pick);
	__s32 active;

	if (!destination)
		return ENDLESS_LOAD;
	if (scheduler == SCHEDULER_LC)
		return halves(1, overhead(destination));
	if (scheduler != SCHEDULER_SED && scheduler != SCHEDULER_NQ)
		return halves(pick->weight, overhead(destination));
	active = *(volatile __s32 *)&destination->active;
	if (scheduler == SCHEDULER_NQ && active == 0)
		return halves(pick->weight, 0);
	return halves(pick->weight, active + 1);
}

struct load_tree {
	__u32 start;     /* of its run */
	__u32 count;
	__u32 scheduler;
	__u32 root;      /* its block */
	__u32 leaves;    /* their first block */
	__u32 height;    /* the root's level */
};

static __always_inline struct load_block *load_block_at(__u32 index)
{
	struct load_block *block = bpf_map_lookup_elem(&loads, &index);

	asm volatile("" : "+r"(block));
	return block;
}

/* How many blocks a level of a tree with so many leaves has. */
static __always_inline __u32 blocks_at(__u32 count, __u32 level)
{
	return ((count - 1) >> (FANOUT_BITS * (level + 1) & 31)) + 1;
}

static __always_inline void shape_tree(struct load_tree *tree, const struct run *run, __u32 root)
{
	__u32 level, blocks;

	tree->start = run->start;
	tree->count = run->count;
	tree->scheduler = run->scheduler;
	tree->root = tree->leaves = root;
	tree->height = 0;
	for (level = LOAD_HEIGHT; level > 0; level--) {
		blocks = blocks_at(run->count, level);
		if (tree->height == 0 && blocks == 1 && blocks_at(run->count, level - 1) > 1)
			tree->height = level;
		if (tree->height)
			tree->leaves += blocks;
	}
}

/* The lesser of two loads, the first of equals; without a branch, which nobody could predict. */
static __always_inline __u64 lesser(__u64 first, __u64 second)
{
	__s64 excess = ((__s64)second >> 32) * (__u32)first - ((__s64)first >> 32) * (__u32)second;

	return first ^ ((first ^ second) & (excess >> 63));
}

static __always_inline __u64 least_of(const struct load_block *block)
{
	const __u64 *load = block->load;

	return lesser(lesser(lesser(load[0], load[1]), lesser(load[2], load[3])),
		      lesser(lesser(load[4], load[5]), lesser(load[6], load[7])));
}

/* Enter a load at a place of a level, and what follows from it above. */
__attribute__((noinline)) int enter_load(const struct load_tree *tree, __u32 level, __u32 place,
					 __u64 load)
{
	struct load_block *block;
	__u32 base, n;

	if (!tree)
		return 0;
	base = tree->leaves;
	for (n = 0; n <= LOAD_HEIGHT; n++) {
		if (n >= level) {
			block = load_block_at(base + place / LOAD_FANOUT);
			if (!block || block->load[place % LOAD_FANOUT] == load)
				return 0;
			block->load[place % LOAD_FANOUT] = load;
			if (n == tree->height)
				return 0;
			load = least_of(block);
			place /= LOAD_FANOUT;
		}
		base -= blocks_at(tree->count, n + 1);
	}
	return 0;
}

/* The first slot of a block that has such a load, or LOAD_FANOUT; as many slots come before
 * it as differ one after the other. */
static __always_inline __u32 place_in(const struct load_block *block, __u64 load)
{
	__u64 differs = 1, difference;
	__u32 slot = 0;

#pragma unroll
	for (int i = 0; i < LOAD_FANOUT; i++) {
		difference = block->load[i] ^ load;
		differs &= (difference | -difference) >> 63;
		slot += differs;
	}
	return unseen(slot);
}

/* The first of the least; or NO_DESTINATION, if none is entered under what its block says. */
__attribute__((noinline)) int lightest_leaf(const struct load_tree *tree)
{
	__u32 base, place = 0, level, slot;
	struct load_block *block;
	__u64 load = 0;

	if (!tree)
		return NO_DESTINATION;
	base = tree->root;
	level = tree->height;
	for (int n = 0; n <= LOAD_HEIGHT; n++) {
		block = load_block_at(base + place);
		if (!block)
			return NO_DESTINATION;
		if (n == 0)
			load = least_of(block);
		slot = place_in(block, load);
		if (slot == LOAD_FANOUT)
			return NO_DESTINATION;
		place = place * LOAD_FANOUT + slot;
		if (level == 0)
			return place;
		base += blocks_at(tree->count, level);
		level--;
	}
	return NO_DESTINATION;
}

/* Read the loads of a block of leaves; returns their least. */
static __always_inline __u64 read_loads(const struct load_tree *tree, __u32 number)
{
	struct load_block *block = load_block_at(tree->leaves + number);
	__u32 leaf = number * LOAD_FANOUT;
	struct pick pick;
	__u64 load;

	if (!block)
		return ENDLESS_LOAD;
	for (int i = 0; i < LOAD_FANOUT; i++) {
		load = ENDLESS_LOAD;
		if (leaf + i < tree->count) {
			pick = pick_at(tree->start, leaf + i + 1);
			load = load_of(&pick, tree->scheduler);
		}
		block->load[i] = load;
	}
	return least_of(block);
}

/* Looking at what may have become less. */

struct marks_walk {
	struct load_tree tree;
	__u64 marks;   /* of one word, and */
	__u32 word;    /* the next one */
	__u32 block;   /* the next one of the mark at hand: blocks share 256 marks */
	__u32 service;
	__u32 pad;
};

static __always_inline __u32 lowest_bit(__u64 word)
{
	__u32 place = 0;

#pragma unroll
	for (int bits = 32; bits; bits /= 2) {
		if (!(word & ((1ULL << bits) - 1))) {
			word >>= bits;
			place += bits;
		}
	}
	return unseen(place);
}

static long marks_step(__u32 i, void *data)
{
	struct marks_walk *walk = data;
	struct service *service;

	if (walk->block < blocks_at(walk->tree.count, 0)) {
		enter_load(&walk->tree, 1, walk->block, read_loads(&walk->tree, walk->block));
		walk->block += LOAD_MARKS;
		return 0;
	}
	if (walk->marks) {
		walk->block = (walk->word - 1) * 64 + lowest_bit(walk->marks);
		walk->marks &= walk->marks - 1;
		return 0;
	}
	service = bpf_map_lookup_elem(&services, &walk->service);
	if (!service || walk->word >= LOAD_MARKS / 64)
		return 1;
	walk->marks = __sync_lock_test_and_set(&service->lighter[walk->word & (LOAD_MARKS / 64 - 1)], 0);
	walk->word++;
	return 0;
}

static __always_inline int has_marks(const struct service *service)
{
	const volatile __u64 *lighter = service->lighter;

	return (lighter[0] | lighter[1] | lighter[2] | lighter[3]) != 0;
}

/* Making a tree. */

struct tree_walk {
	struct load_tree tree;
	__u32 level;
	__u32 base;  /* of that level's blocks */
};

static long number_step(__u32 i, void *data)
{
	struct tree_walk *walk = data;
	struct pick pick = pick_at(walk->tree.start, i + 1);
	struct destination *destination = bpf_map_lookup_elem(&destinations, &pick.destination);

	if (destination && destination->leaf != i + 1)
		destination->leaf = i + 1;
	return 0;
}

static long leaves_step(__u32 i, void *data)
{
	struct tree_walk *walk = data;

	read_loads(&walk->tree, i);
	return 0;
}

static long level_step(__u32 i, void *data)
{
	struct tree_walk *walk = data;
	struct load_block *block = load_block_at(walk->base + i / LOAD_FANOUT), *below;
	__u64 load = ENDLESS_LOAD;

	if (i < blocks_at(walk->tree.count, walk->level - 1)) {
		below = load_block_at(walk->base + blocks_at(walk->tree.count, walk->level) + i);
		if (below)
			load = least_of(below);
	}
	if (block)
		block->load[i % LOAD_FANOUT] = load;
	return 0;
}

__attribute__((noinline)) int make_tree(const struct load_tree *tree, __u32 service_index)
{
	struct service *service = bpf_map_lookup_elem(&services, &service_index);
	struct tree_walk walk;

	if (!tree || !service)
		return 0;
	walk.tree = *tree;
	walk.base = tree->leaves;
	bpf_loop(loop_count(tree->count), number_step, &walk, 0);
	for (int i = 0; i < LOAD_MARKS / 64; i++)
		__sync_lock_test_and_set(&service->lighter[i], 0);
	bpf_loop(loop_count(blocks_at(tree->count, 0)), leaves_step, &walk, 0);
	for (__u32 level = 1; level <= LOAD_HEIGHT; level++) {
		if (level > tree->height)
			break;
		walk.level = level + unseen(0);
		walk.base -= blocks_at(tree->count, level);
		bpf_loop(loop_count(blocks_at(tree->count, level) * LOAD_FANOUT), level_step, &walk, 0);
	}
	return 0;
}

/* Choosing. */

static __always_inline int take_tree(struct service *service)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < TREE_WAITS; i++) {
		if (!*(volatile __u32 *)&service->tree_taken &&
		    __sync_val_compare_and_swap(&service->tree_taken, 0, 1) == 0)
			return 1;
	}
	return 0;
}

static __always_inline __u64 load_at(const struct load_tree *tree, __u32 leaf)
{
	struct load_block *block = load_block_at(tree->leaves + leaf / LOAD_FANOUT);

	return block ? block->load[leaf % LOAD_FANOUT] : 0;
}

/* The least loaded, as the tree has it and its real server confirms. */
static __always_inline int confirmed(const struct load_tree *tree, struct service *service)
{
	struct pick pick;
	__u64 load;
	int leaf;

	leaf = (int)service->chosen - 1;
	if (leaf >= 0) {
		pick = pick_at(tree->start, leaf + 1);
		enter_load(tree, 0, leaf, load_of(&pick, tree->scheduler));
	}

#pragma clang loop unroll(disable)
	for (int i = 0; i < LOAD_TRIES; i++) {
		leaf = lightest_leaf(tree);
		if (leaf < 0)
			return BROKEN;
		pick = pick_at(tree->start, leaf + 1);
		load = load_of(&pick, tree->scheduler);
		if (load == load_at(tree, leaf)) {
			service->chosen = leaf + 1;
			return load == ENDLESS_LOAD ? NO_DESTINATION : pick.destination;
		}
		enter_load(tree, 0, leaf, load);
	}
	return UNDECIDED;
}

/* The least loaded of a run's real servers, NO_DESTINATION, or UNDECIDED. */
__attribute__((noinline)) int schedule_by_tree(const struct run *run)
{
	struct service *service;
	struct marks_walk walk;
	__u64 number;
	__u32 index;
	int found;

	if (!run)
		return UNDECIDED;
	index = run->service;
	service = bpf_map_lookup_elem(&services, &index);
	number = pool_read(run->start + 2);
	if (!service || !low_half(number) || !take_tree(service))
		return UNDECIDED;
	shape_tree(&walk.tree, run, low_half(number));
	if (service->tree != number) {
		make_tree(&walk.tree, index);
		service->chosen = 0;
		service->tree = number;
	} else if (has_marks(service)) {
		walk.service = index;
		walk.marks = walk.word = unseen(0);
		walk.block = unseen(NO_BLOCK);
		bpf_loop(loop_count(blocks_at(run->count, 0) + LOAD_MARKS + LOAD_MARKS / 64 + 1),
			 marks_step, &walk, 0);
	}
	found = confirmed(&walk.tree, service);
	if (found == BROKEN) {
		service->tree = 0; /* made anew by the next one */
		found = UNDECIDED;
	}
	__sync_lock_test_and_set(&service->tree_taken, 0);
	return found;
}

#endif
