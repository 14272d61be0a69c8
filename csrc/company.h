/* How many members a team may have beside others who want the processors. Knows nothing of threads or clocks: it is
 * told what was seen, and when. */
#ifndef FASTRNN_COMPANY_H
#define FASTRNN_COMPANY_H

struct company {
    int most;          /* members that a team may have; 0: nobody has been in the way */
    double again;      /* when more are tried */
    double pause;      /* how long to wait after the next time that processors are missing; 0: the shortest */
    int limits;        /* since the last judgement somebody has wanted more than most */
    /* Of teams of at most so many, and of larger ones: */
    struct company_sums {
        double wall, lost; /* seconds, and those in which members wanted a processor and had none */
        double members;    /* seconds times members */
    } sums[2];
};

/* How many of `wanted` members a team may have at this time. */
int company_allows(struct company *company, int wanted, double time);

/* A team of several members has ended: it took `wall` seconds, in which its members together had no processor for
 * `lost` seconds though they had work. */
void company_saw(struct company *company, int members, double wall, double lost, double time);
#endif
