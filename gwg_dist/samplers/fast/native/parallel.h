/* Chains shared among threads.
 *
 * Chains are independent and their noise is drawn outside, so who moves which makes no difference to a bit of the result.
 * The threads are our own and sleep while there is nothing to do: OpenMP's need a compiler that has it, are another
 * runtime beside torch's where names differ, and a child of fork() would wait for ever for those of its parent.
 * Whoever calls works as well and never waits for a thread that has not begun, as on a busy machine.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

/* Moves the chains from..to-1, as the thread of this number, 0..threads-1, which says whose scratch to use. */
typedef void Body(int64_t thread, int64_t from, int64_t to, const void *arguments);

typedef struct {
    pthread_mutex_t in_use; /* by the thread that shares its chains */
    pthread_mutex_t lock;   /* of all below but `next` */
    pthread_cond_t work, done;
    int64_t workers, wanted, joined, running;
    Body *body;
    const void *arguments;
    int64_t chains, portion;
    atomic_llong next; /* the first chain that nobody has taken */
} Pool;

#define NO_THREADS                                                                          \
    {                                                                                       \
        .in_use = PTHREAD_MUTEX_INITIALIZER, .lock = PTHREAD_MUTEX_INITIALIZER,             \
        .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER, .workers = 0    \
    }
static Pool pool = NO_THREADS;

/* Nanoseconds of work left below which waking a thread, 5,000 to 50,000, is not worth it. */
int64_t worth_sharing = 100000;

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void take_portions(int64_t thread) {
    for (;;) {
        int64_t from = atomic_fetch_add(&pool.next, pool.portion), left = pool.chains - from;
        if (left <= 0) return;
        pool.body(thread, from, from + (left < pool.portion ? left : pool.portion), pool.arguments);
    }
}

static void *work(void *unused) {
    (void)unused;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (!pool.wanted) pthread_cond_wait(&pool.work, &pool.lock);
        pool.wanted--;
        pool.running++;
        int64_t thread = ++pool.joined;
        pthread_mutex_unlock(&pool.lock);
        take_portions(thread);
        pthread_mutex_lock(&pool.lock);
        if (!--pool.running) pthread_cond_signal(&pool.done);
    }
    return NULL;
}

/* The child of a fork has no threads but the one that forked, whatever the locks say. */
static void forget_threads(void) {
    pool = (Pool)NO_THREADS;
}

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, forget_threads);
}

/* Makes threads up to this number, as far as the system allows; signals go to the others, as Python expects. */
static void hire(int64_t workers) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (pthread_t thread; pool.workers < workers && !pthread_create(&thread, NULL, work, NULL); pool.workers++)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void share(int64_t threads, int64_t from, int64_t chains, Body *body, const void *arguments) {
    int64_t portion = (chains - from) / (8 * threads);
    hire(threads - 1);
    pthread_mutex_lock(&pool.lock);
    pool.body = body;
    pool.arguments = arguments;
    pool.chains = chains;
    pool.portion = portion > 1 ? portion : 1;
    pool.wanted = threads - 1;
    pool.joined = 0;
    atomic_store(&pool.next, from);
    pthread_mutex_unlock(&pool.lock);
    for (int64_t i = 1; i < threads; i++) pthread_cond_signal(&pool.work);

    take_portions(0);
    pthread_mutex_lock(&pool.lock);
    pool.wanted = 0;
    while (pool.running) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

/* body on all chains, by at most `threads` threads. The first few chains tell how long the others will take: little work
 * stays here, and so does that of a second caller while the threads serve a first. */
void for_chains(int64_t threads, int64_t chains, Body *body, const void *arguments) {
    threads = threads < chains ? threads : chains;
    if (threads <= 1) {
        body(0, 0, chains, arguments);
        return;
    }
    int64_t start = now(), first = 1 + chains / 64;
    body(0, 0, first, arguments);
    if ((double)(now() - start) / first * (chains - first) < worth_sharing || pthread_mutex_trylock(&pool.in_use)) {
        body(0, first, chains, arguments);
        return;
    }
    share(threads, first, chains, body, arguments);
    pthread_mutex_unlock(&pool.in_use);
}
