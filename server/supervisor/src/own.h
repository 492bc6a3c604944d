/* Gives folders of the image to the user that commands run as, before any command runs. */
#ifndef OWN_H
#define OWN_H

/* `own SECONDS USER PATH...`: prints how many entries it gave away, or a sentence, and returns 1 then. It ends itself
   after so many seconds. */
int own_run(int count, char **words);

#endif
