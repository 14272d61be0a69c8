/* How many threads a team may have beside others who want the processors. Knows no thread and no clock: it is
 * told what was seen, and when. */
#ifndef FASTRNN_COMPANY_H
#define FASTRNN_COMPANY_H

struct company {
    int max;           /* threads that a team may have; 0: nobody has been in the way */
    double again;      /* when more are tried */
    double pause;      /* how long to wait after the next time that processors are missing; 0: the shortest */
    int limits;        /* since the last judgement somebody has wanted more than max */
    /* [0] of teams of at most `max` threads, [1] of larger ones: */
    struct company_sums {
        double wall, lost; /* seconds, and those in which threads wanted a processor and had none */
        double threads;    /* seconds times threads */
    } sums[2];
};

/* How many of `wanted` threads a team may have at this time. */
int company_allows(struct company *company, int wanted, double time);

/* A team of several threads has ended: it took `wall` seconds, in which its threads together had no processor for
 * `lost` seconds though they had work. */
void company_saw(struct company *company, int threads, double wall, double lost, double time);
#endif
