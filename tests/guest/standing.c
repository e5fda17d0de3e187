/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Preloaded into a program, keeps it standing at the door of its main(): for
 * each command line that comes it forks, and the child goes on into main().
 * Starting a program anew is what costs most under emulation.  See standing.py.
 *
 *   request, on descriptor 3:  length of what follows (32 bits), then the words
 *                              of the command line, each ended by a zero byte
 *   answer, on descriptor 4:   the status that waitpid() gave (32 bits)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_WORDS 64
#define MOST_BYTES 4096
#define REQUESTS 3
#define ANSWERS 4

typedef int main_function(int, char **, char **);
typedef int start_function(main_function *, int, char **, void (*)(void), void (*)(void),
			   void (*)(void), void *);

static main_function *true_main;

static void take(void *place, size_t size)
{
	size_t got = 0;
	ssize_t more;

	while (got < size) {
		more = read(REQUESTS, (char *)place + got, size - got);
		if (more <= 0)
			_exit(0);
		got += more;
	}
}

static int stand(int count, char **words, char **environment)
{
	static char text[MOST_BYTES + 1];
	char *line[MOST_WORDS + 1];
	uint32_t size;
	int status;
	pid_t child;

	line[0] = words[0];
	for (;;) {
		take(&size, sizeof(size));
		if (size > MOST_BYTES)
			_exit(1);
		take(text, size);
		count = 1;
		for (char *word = text; word < text + size && count < MOST_WORDS; count++) {
			line[count] = word;
			while (*word++)
				;
		}
		line[count] = NULL;
		child = fork();
		if (child == 0) {
			close(REQUESTS);
			close(ANSWERS);
			return true_main(count, line, environment);
		}
		if (child < 0 || waitpid(child, &status, 0) != child ||
		    write(ANSWERS, &status, sizeof(status)) != sizeof(status))
			_exit(1);
	}
}

int __libc_start_main(main_function *entry, int count, char **words, void (*init)(void),
		      void (*fini)(void), void (*linker_fini)(void), void *stack_end)
{
	start_function *start = (start_function *)dlsym(RTLD_NEXT, "__libc_start_main");

	true_main = entry;
	return start(stand, count, words, init, fini, linker_fini, stack_end);
}
